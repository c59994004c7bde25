// The page's scripts become one script, so each of them sees what the others declare.

import { readdirSync, readFileSync } from "node:fs";
import js from "@eslint/js";
import { analyze } from "eslint-scope";
import { parse } from "espree";
import globals from "globals";

const ecmaVersion = 2022;
const folder = new URL("../../camtool/report/", import.meta.url);
const scripts = readdirSync(folder).filter((name) => name.endsWith(".js")).map((name) => {
  const tree = parse(readFileSync(new URL(name, folder), "utf8"), { ecmaVersion, range: true });
  const { variables, through } = analyze(tree, { ecmaVersion }).globalScope;
  return {
    name,
    declares: variables.map((variable) => variable.name),
    uses: through.map((reference) => reference.identifier.name),
  };
});

function shared({ name, declares }) {
  const others = scripts.filter((script) => script.name !== name);
  const elsewhere = new Set(others.flatMap((script) => script.uses));
  const used = declares.filter((name) => elsewhere.has(name));
  return {
    files: [`camtool/report/${name}`],
    languageOptions: {
      ecmaVersion,
      sourceType: "script",
      globals: {
        ...globals.browser,
        ...Object.fromEntries(others.flatMap((script) => script.declares.map((it) => [it, false]))),
      },
    },
    rules: { "no-unused-vars": ["error", { vars: "all", varsIgnorePattern: `^(${used.join("|")})$` }] },
  };
}

export default [
  js.configs.recommended,
  ...scripts.map(shared),
  {
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: { eqeqeq: "error", "no-shadow": "error", "no-var": "error", "prefer-const": "error" },
  },
];
