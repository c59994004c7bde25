"""The page of a study."""


def render(study, document, folder):
    return ""
