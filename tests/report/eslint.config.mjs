// The scripts of a page become one script, so each of them sees what the others declare. Those in
// SHARED belong to every page: they see one another alone, and all others see them.

import { readdirSync, readFileSync } from "node:fs";
import js from "@eslint/js";
import { analyze } from "eslint-scope";
import { parse } from "espree";
import globals from "globals";

const ecmaVersion = 2022;
const FOLDERS = ["camtool/report/", "camtool/views/web/"];
const SHARED = ["camtool/views/web/maps.js", "camtool/views/web/page.js"];
const root = new URL("../../", import.meta.url);
const scripts = FOLDERS.flatMap((folder) => readdirSync(new URL(folder, root))
  .filter((name) => name.endsWith(".js")).map((name) => {
    const file = folder + name, text = readFileSync(new URL(file, root), "utf8");
    const { variables, through } = analyze(parse(text, { ecmaVersion, range: true }), { ecmaVersion }).globalScope;
    return {
      file,
      page: SHARED.includes(file) ? "" : folder,
      declares: variables.map((variable) => variable.name),
      uses: through.map((reference) => reference.identifier.name),
    };
  }));

function settings(script) {
  const others = scripts.filter((other) => other !== script);
  const seen = others.filter(({ page }) => !page || page === script.page);
  const seeing = others.filter(({ page }) => !script.page || page === script.page || !page);
  const elsewhere = new Set(seeing.flatMap(({ uses }) => uses));
  const used = script.declares.filter((name) => elsewhere.has(name));
  return {
    files: [script.file],
    languageOptions: {
      ecmaVersion,
      sourceType: "script",
      globals: {
        ...globals.browser,
        ...Object.fromEntries(seen.flatMap(({ declares }) => declares.map((name) => [name, false]))),
      },
    },
    rules: { "no-unused-vars": ["error", { vars: "all", varsIgnorePattern: `^(${used.join("|")})$` }] },
  };
}

export default [
  js.configs.recommended,
  ...scripts.map(settings),
  {
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: { eqeqeq: "error", "no-shadow": "error", "no-var": "error", "prefer-const": "error" },
  },
];
