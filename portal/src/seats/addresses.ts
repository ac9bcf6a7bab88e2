export interface Address {
  text: string;
  /** The reason for which the address was kept back: not an address, or a code of the API. */
  problem: string | null;
  figures?: Record<string, unknown>;
}

const ADDRESS = /^[^\s@<>"]+@[^\s@<>"]+\.[^\s@<>".]+$/;

/** Splits typed or pasted text at commas, semicolons, spaces and lines. "Ann <ann@example.com>" gives the address. */
export function addressesOf(text: string): Address[] {
  const bracketed = [...text.matchAll(/<([^<>\s]+)>/g)].map((found) => found[1] ?? "");
  const rest = text.replace(/[^,;\n<]*<[^<>]*>/g, " ");
  const parts = [...bracketed, ...rest.split(/[\s,;]+/)].map((part) => part.trim()).filter((part) => part !== "");
  return parts.map((part) => ({ text: part, problem: ADDRESS.test(part) ? null : "invalid_address" }));
}

/** Returns `before` and those of `more` that are not in it, compared as the API compares addresses. */
export function joined(before: Address[], more: Address[]): Address[] {
  const folded = (address: Address) => address.text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
  const known = new Set(before.map(folded));
  const added = more.filter((address) => {
    const isNew = !known.has(folded(address));
    known.add(folded(address));
    return isNew;
  });
  return [...before, ...added];
}
