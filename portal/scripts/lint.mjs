/**
 * The portal's own checks: no text outside of the messages, no missing or unused key, the same arguments in every
 * language, no physical side in CSS, and nothing in the sources that only a server may have.
 */
import { globSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parse } from "@formatjs/icu-messageformat-parser";
import ts from "typescript";

const TEXT_ATTRIBUTES = new Set(["aria-label", "aria-description", "alt", "title", "placeholder", "label", "hint"]);
const PHYSICAL =
  /(?:^|[\s;{])(?:(?:margin|padding|border|inset|scroll-margin|scroll-padding)-(?:left|right)\b|(?:left|right)\s*:|(?:text-align|float|clear)\s*:\s*(?:left|right)\b|border-(?:top|bottom)-(?:left|right)-radius\b)/;
const SECRET = /csk_|sk_(?:live|test)_|whsec_|X-Acting-Customer/i;

/** Returns the problems of the sources in a directory, one line each, and how many messages there are. */
export function check(root) {
  const problems = [];
  const texts = Object.fromEntries(
    globSync("messages/*.json", { cwd: root }).map((file) => [
      /(\w+)\.json$/.exec(file)[1],
      JSON.parse(readFileSync(`${root}/${file}`, "utf8")),
    ]),
  );
  const english = texts.en;
  const used = new Set();
  for (const file of globSync("**/*.{ts,tsx}", { cwd: root })) {
    const code = readFileSync(`${root}/${file}`, "utf8");
    const source = ts.createSourceFile(file, code, ts.ScriptTarget.Latest, true, ts.ScriptKind.TSX);
    const report = (node, problem) => {
      const { line } = source.getLineAndCharacterOfPosition(node.getStart(source));
      problems.push(`${file}:${line + 1}: ${problem}`);
    };
    if (SECRET.test(code)) problems.push(`${file}: holds what only a server may have.`);
    visit(source, english, used, report);
  }
  for (const key of Object.keys(english)) {
    if (!used.has(key)) problems.push(`messages/en.json: "${key}" is used nowhere.`);
  }
  for (const [language, messages] of Object.entries(texts)) {
    for (const key of new Set([...Object.keys(english), ...Object.keys(messages)])) {
      const problem = problemOfMessage(language, english, messages, key);
      if (problem !== null) problems.push(problem);
    }
  }
  for (const file of globSync("**/*.css", { cwd: root })) {
    readFileSync(`${root}/${file}`, "utf8").split("\n").forEach((line, place) => {
      if (PHYSICAL.test(line)) problems.push(`${file}:${place + 1}: a physical side, ${line.trim()}`);
    });
  }
  return { problems, messages: Object.keys(english).length, languages: Object.keys(texts).length };
}

function visit(node, english, used, report) {
  if (ts.isJsxText(node) && /\p{L}/u.test(node.text)) report(node, `a text outside of the messages, "${node.text.trim()}".`);
  if (ts.isJsxAttribute(node) && TEXT_ATTRIBUTES.has(node.name.getText()) && node.initializer !== undefined) {
    const value = ts.isJsxExpression(node.initializer) ? node.initializer.expression : node.initializer;
    if (value !== undefined && isText(value)) report(node, `a text outside of the messages, ${value.getText()}.`);
  }
  if (ts.isJsxExpression(node) && !ts.isJsxAttribute(node.parent) && node.expression && hasText(node.expression)) {
    report(node, `a text outside of the messages, ${node.getText()}.`);
  }
  if (ts.isCallExpression(node) && node.expression.getText() === "t" && node.arguments[0] !== undefined) {
    const key = node.arguments[0];
    if (ts.isStringLiteral(key) && !(key.text in english)) report(node, `"${key.text}" is in no message file.`);
  }
  if (ts.isStringLiteral(node) && node.text in english) used.add(node.text);
  ts.forEachChild(node, (child) => visit(child, english, used, report));
}

function isText(node) {
  return (ts.isStringLiteralLike(node) || ts.isTemplateExpression(node)) && /\p{L}/u.test(node.getText().replace(/\$\{[^}]*\}/g, ""));
}

/** A child of JSX: a text, or a choice between texts. */
function hasText(node) {
  if (ts.isConditionalExpression(node)) return hasText(node.whenTrue) || hasText(node.whenFalse);
  if (ts.isBinaryExpression(node)) return hasText(node.right);
  if (ts.isParenthesizedExpression(node)) return hasText(node.expression);
  return isText(node);
}

function problemOfMessage(language, english, messages, key) {
  const place = `messages/${language}.json: "${key}"`;
  if (!(key in messages)) return `${place} is missing.`;
  if (!(key in english)) return `${place} is not in English.`;
  try {
    const [own, others] = [messages, english].map((all) => [...argumentsOf(parse(all[key]))].sort().join(", "));
    return own === others ? null : `${place} takes (${own}) instead of (${others}).`;
  } catch (error) {
    return `${place} is no ICU message: ${error.message}.`;
  }
}

function argumentsOf(elements, found = new Set()) {
  for (const element of elements) {
    if (element.type !== 0 && element.type !== 7 && element.type !== 8) found.add(element.value);
    for (const option of Object.values(element.options ?? {})) argumentsOf(option.value, found);
  }
  return found;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { problems, messages, languages } = check(fileURLToPath(new URL("../src", import.meta.url)));
  if (problems.length > 0) {
    console.error(problems.join("\n"));
    process.exit(1);
  }
  console.log(`${messages} messages in ${languages} languages, each used and translated.`);
}
