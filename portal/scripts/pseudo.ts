import { type MessageFormatElement, TYPE } from "@formatjs/icu-messageformat-parser";

const ACCENTED: Record<string, string> = {
  a: "á", b: "ḅ", c: "ç", d: "ḍ", e: "é", f: "ƒ", g: "ĝ", h: "ĥ", i: "í", j: "ĵ", k: "ķ", l: "ļ", m: "ɱ",
  n: "ñ", o: "ó", p: "þ", q: "ʠ", r: "ŕ", s: "š", t: "ţ", u: "ú", v: "ṽ", w: "ŵ", x: "ẋ", y: "ý", z: "ž",
  A: "Å", B: "Ɓ", C: "Ç", D: "Ð", E: "É", F: "Ƒ", G: "Ĝ", H: "Ĥ", I: "Î", J: "Ĵ", K: "Ķ", L: "Ļ", M: "Ṁ",
  N: "Ñ", O: "Ö", P: "Þ", Q: "Ǫ", R: "Ŕ", S: "Š", T: "Ţ", U: "Û", V: "Ṽ", W: "Ŵ", X: "Ẋ", Y: "Ý", Z: "Ž",
};
const GROWTH = 0.4;
const PADDING = "one two three four five six seven eight nine ten eleven twelve";

/** Returns a message whose letters are accented and whose text is 40 % longer. Arguments stay as they are. */
export function pseudoLocalised(elements: MessageFormatElement[], isWhole = true): MessageFormatElement[] {
  const changed = elements.map((element): MessageFormatElement => {
    switch (element.type) {
      case TYPE.literal:
        return { ...element, value: accented(element.value) };
      case TYPE.plural:
      case TYPE.select:
        return {
          ...element,
          options: Object.fromEntries(
            Object.entries(element.options).map(([name, option]) => [
              name,
              { ...option, value: pseudoLocalised(option.value, false) },
            ]),
          ),
        } as MessageFormatElement;
      case TYPE.tag:
        return { ...element, children: pseudoLocalised(element.children, false) };
      default:
        return element;
    }
  });
  if (!isWhole) return changed;
  const padding = accented(padded(lengthOf(elements)));
  return [literal("["), ...changed, literal(padding === "" ? "]" : ` ${padding}]`)];
}

function literal(value: string): MessageFormatElement {
  return { type: TYPE.literal, value };
}

function accented(text: string): string {
  return text.replace(/[a-z]/gi, (letter) => ACCENTED[letter] ?? letter);
}

function padded(length: number): string {
  return PADDING.slice(0, Math.ceil(length * GROWTH)).trim();
}

/** Returns the length of the longest form of a message, without its arguments. */
function lengthOf(elements: MessageFormatElement[]): number {
  return elements.reduce((sum, element) => {
    if (element.type === TYPE.literal) return sum + element.value.length;
    if (element.type === TYPE.tag) return sum + lengthOf(element.children);
    if (element.type === TYPE.plural || element.type === TYPE.select) {
      return sum + Math.max(...Object.values(element.options).map((option) => lengthOf(option.value)));
    }
    return sum;
  }, 0);
}
