import type { Api, Person } from "../api";
import type { Coseat } from "../coseat";
import { ROLE_KEYS, STATE_KEYS } from "./labels.ts";

const PAGE = 100;

/** A spreadsheet takes such a cell as a formula. An apostrophe in front makes it text. */
const FORMULA = /^[=+\-@\t\r\n]/;

function cell(text: string): string {
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return `"${safe.replaceAll('"', '""')}"`;
}

export function csvOf(rows: string[][]): string {
  return `${rows.map((row) => row.map(cell).join(",")).join("\r\n")}\r\n`;
}

/** Saves everybody on a subscription, all pages, as a file. Returns the number of people. */
export async function downloadPeople(api: Api, subscriptionId: string, { t }: Pick<Coseat, "t">): Promise<number> {
  const people: Person[] = [];
  let cursor: string | null = null;
  do {
    const page = await api.people(subscriptionId, { limit: PAGE, ...(cursor === null ? {} : { cursor }) });
    people.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor !== null);
  const head = [t("column.name"), t("column.email"), t("column.role"), t("column.state"), t("column.since")];
  const rows = people.map((person) => [
    person.name ?? "",
    person.email ?? "",
    t(ROLE_KEYS[person.role]),
    t(STATE_KEYS[person.state]),
    person.since ?? "",
  ]);
  const link = document.createElement("a");
  // The mark at the beginning tells spreadsheets that the text is UTF-8.
  link.href = URL.createObjectURL(new Blob(["\uFEFF", csvOf([head, ...rows])], { type: "text/csv" }));
  link.download = `${subscriptionId}.csv`;
  link.click();
  URL.revokeObjectURL(link.href);
  return people.length;
}
