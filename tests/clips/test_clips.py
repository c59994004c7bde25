"""Videos: what is in the new one, beside what the frames' own maps say."""

from __future__ import annotations

import csv
import json
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import camtool
from camtool.cli import app
from camtool.clips.explain import explain_clip
from camtool.clips.frames import av, count, frames
from camtool.clips.write import writing
from camtool.images import ImageError
from camtool.views.overlay import Look, overlays_of
from camtool.views.save import Views

pytestmark = pytest.mark.slow

RATE = 10


def made(
    path: Path, number: int = 12, size=(96, 80), sound: str = "aac", codec: str = "h264"
) -> Path:
    """A video of noise that moves, a tenth of a second a frame but for a pause in the middle."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 40, 3), np.uint8)
    wide = np.kron(coarse, np.ones((16, 16, 1), np.uint8))
    with av().open(str(path), "w") as container:
        video = container.add_stream(codec, rate=RATE)
        video.width, video.height, video.pix_fmt = size[0], size[1], "yuv420p"
        tone = container.add_stream(sound, rate=22050) if sound else None
        for n in range(number):
            part = np.ascontiguousarray(wide[: size[1], 8 * n : 8 * n + size[0]])
            frame = av().VideoFrame.from_ndarray(part, format="rgb24")
            frame.pts, frame.time_base = n + 5 * (n >= number // 2), Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if tone is not None:
            wave = np.sin(np.arange(22050) / 8)[None].astype(np.float32) / 4
            heard = av().AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
            heard.sample_rate, heard.pts = 22050, 0
            container.mux(tone.encode(heard))
            container.mux(tone.encode(None))
    return path


@pytest.fixture(scope="module")
def model(tiny):
    return camtool.load(tiny, device="cpu")


@pytest.fixture(scope="module")
def explained(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    source = made(folder / "clip.mp4")
    seen: list[tuple[int, int]] = []
    clip = explain_clip(
        model,
        source,
        folder / "clip",
        Views(("panel",), Look(), boxes=False),
        best(model, source),
        batch_size=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    return source, clip, seen


def best(model, source) -> str:
    """The class of a video's first frame."""
    return model.explain(next(frames(source)).image).labels[0]


def sound_of(path: Path) -> list[bytes]:
    with av().open(str(path)) as container:
        packets = container.demux(container.streams.audio[0])
        return [bytes(packet) for packet in packets if packet.size]


def test_frames_come_in_order_with_their_times(tmp_path):
    source = made(tmp_path / "clip.mp4")
    found = [*frames(source)]
    assert len(found) == count(source) == 12
    assert [round(frame.seconds, 3) for frame in found][:3] == [0.0, 0.1, 0.2]
    assert found[6].seconds == pytest.approx(1.1)
    assert {frame.image.shape for frame in found} == {(80, 96, 3)}


def test_the_table_says_of_every_frame_what_the_model_says_of_it(model, explained):
    source, clip, _ = explained
    rows, label = [*csv.DictReader(clip.table.open())], best(model, source)
    assert len(rows) == 12
    for row, frame in zip(rows, frames(source), strict=True):
        found = model.explain(frame.image, targets=label)
        assert float(row["seconds"]) == pytest.approx(frame.seconds, abs=1e-3)
        assert row["label"] == label
        # Frames share batches, whose sums differ in the last digits.
        assert float(row["logit"]) == pytest.approx(found.logits[0], abs=2e-4)
        assert float(row["probability"]) == pytest.approx(found.probabilities[0], abs=1e-4)
        box = tuple(int(row[side]) for side in ("x0", "y0", "x1", "y1"))
        assert box == found.boxes(0)[0]


def test_all_frames_have_one_scale_their_times_and_a_line_below(explained, model):
    source, clip, _ = explained
    maps = [moment.explanation for moment in clip.moments]
    assert clip.scale == pytest.approx(max(float(one.maps.max()) for one in maps), rel=0.1)
    pairs = zip(frames(source), frames(clip.path), strict=True)
    for before, after in pairs:
        assert after.seconds == pytest.approx(before.seconds, abs=1e-3)
        height, width = before.image.shape[:2]
        assert after.image.shape[0] > height
        assert after.image.shape[1] == width
        look = Look(normalize="none", full_scale=clip.scale)
        painted = next(
            overlays_of(model.explain(before.image, targets=best(model, source)), look)[0]
        )
        # What the codec loses of noise.
        assert np.abs(after.image[:height].astype(int) - painted).mean() < 12
        assert after.image[height + 1 :].mean() > 150


def test_sound_is_copied_byte_by_byte(explained):
    source, clip, _ = explained
    assert sound_of(clip.path) == sound_of(source)


def test_progress_ends_where_all_is_done(explained):
    _, _, seen = explained
    assert [done for done, _ in seen] == [*range(1, 25)]
    assert seen[-1] == (24, 24)


def test_sound_without_a_place_is_left_out_and_said(model, tmp_path):
    source = made(tmp_path / "clip.avi", sound="adpcm_ms", size=(97, 81), codec="mpeg4")
    told: list[str] = []
    views, target = Views(("panel",), Look()), best(model, source)
    clip = explain_clip(model, source, tmp_path / "clip", views, target, warn=told.append)
    assert told == ["its sound (adpcm_ms) has no place in MP4 and is left out"]
    with av().open(str(clip.path)) as container:
        assert not container.streams.audio
    # An odd width is made even.
    shown = next(frames(clip.path)).image
    assert shown.shape[1] == 98
    # The largest box has dark lines at its corner.
    x0, y0, _, _ = clip.moments[0].explanation.boxes(0)[0]
    assert shown[y0, x0].max() < 90


def test_the_class_that_nobody_named_is_the_likeliest_on_average(model, tiny, tmp_path, invoke):
    source = made(tmp_path / "clip.mp4", sound="")
    done = invoke("explain", source, "-m", tiny, "--json")
    (record,) = json.loads(done.stdout)["clips"]
    odds = [model.explain(frame.image, topk=5) for frame in frames(source)]
    means = np.zeros(5)
    for found in odds:
        means[found.indices] += found.probabilities
    assert record["index"] == int(means.argmax())
    assert record["frames"] == 12
    assert Path(record["files"]["clip"]).is_file()


@pytest.fixture
def invoke():
    def run(*words):
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


def test_a_contrast_and_a_picture_beside_a_video(invoke, tiny, make_picture, tmp_path):
    source, photo = made(tmp_path / "clip.mp4", 6), tmp_path / "photo.jpg"
    photo.write_bytes(make_picture(1))
    done = invoke("explain", source, photo, "-m", tiny, "-t", "dog", "--versus", "cat", "--json")
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["clips"][0]["label"], document["clips"][0]["versus"]) == ("dog", "cat")
    assert [image["path"] for image in document["images"]] == [str(photo)]
    rows = [*csv.DictReader((tmp_path / "clip.cam.csv").open())]
    assert {row["versus"] for row in rows} == {"cat"}


def test_what_is_no_video_or_holds_none_is_a_line(invoke, tiny, tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("no video at all")
    (tmp_path / "empty.mp4").write_bytes(b"")
    whole = made(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with av().open(str(tmp_path / "sound.mp4"), "w") as container:
        container.add_stream("aac", rate=22050)
    for name in ("text.mp4", "empty.mp4", "cut.mp4", "sound.mp4", "none.mp4"):
        done = invoke("explain", tmp_path / name, "-m", tiny)
        assert done.exit_code == 1, (name, done.output)
        assert done.stderr.count("\n") == 1
        assert name in done.stderr
        assert not (tmp_path / name).with_suffix(".cam.mp4").exists()
    named = invoke("explain", tmp_path / "whole.mp4", "-m", tiny, "-o", tmp_path / "x.png")
    assert (named.exit_code, "names a picture" in named.stderr) == (2, True)
    monkeypatch.setitem(sys.modules, "av", None)
    missing = invoke("explain", tmp_path / "whole.mp4", "-m", tiny)
    assert "camtool[video]" in str(missing.exception)


def test_of_a_damaged_video_the_frames_before_the_damage_are_kept(tmp_path):
    source = made(tmp_path / "clip.mkv", 40)
    content = source.read_bytes()
    source.write_bytes(content[: len(content) * 2 // 3])
    said: list[str] = []
    found = [*frames(source, said.append)]
    assert 5 < len(found) < 40
    seconds = found[-1].seconds + 0.1
    assert said == [
        f"{source}: its frames end after {seconds:.1f} of 4.5 seconds; the file may be cut off"
    ]
    assert [*frames(made(tmp_path / "whole.mkv", 40), pytest.fail)]


def test_the_folder_of_a_video_is_made(invoke, tiny, tmp_path):
    source = made(tmp_path / "clip.mp4", 2)
    done = invoke("explain", source, "-m", tiny, "-o", tmp_path / "new" / "folder")
    assert done.exit_code == 0, done.output
    made_there = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert made_there == {"clip.cam.mp4", "clip.cam.csv"}


def test_options_that_videos_leave_aside_are_told(invoke, tiny, make_picture, tmp_path):
    source = made(tmp_path / "clip.mp4", 2)
    (tmp_path / "one.png").write_bytes(make_picture(0))
    words = ("-m", tiny, "-k", 2, "--save", "json", "--signed", "--max-pixels", 10**6)
    alone = invoke("explain", source, *words)
    assert alone.exit_code == 0, alone.output
    told = {line for line in alone.stderr.splitlines() if "no effect" in line}
    assert told == {
        f"camtool: {option} has no effect for videos"
        for option in ("--topk", "--save", "--max-pixels")
    }
    both = invoke("explain", source, tmp_path / "one.png", *words)
    assert "--signed has no effect" in both.stderr
    assert "for videos" not in both.stderr
    several = invoke("explain", source, "-m", tiny, "-t", "cat", "-t", "dog")
    assert "a video shows one class; here it is cat" in several.stderr


def test_nothing_is_left_of_a_video_that_could_not_be_written_whole(tmp_path):
    source = made(tmp_path / "clip.mp4", 4)

    def stopped():
        with writing(tmp_path / "new.mp4", source, print) as write:
            for frame in frames(source):
                write(frame.image, frame)
            raise ImageError("clip", "stop")

    with pytest.raises(ImageError, match="stop"):
        stopped()
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]
