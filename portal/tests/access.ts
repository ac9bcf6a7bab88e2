/** What is asserted of every state: axe's rules, the size of targets, and that nothing is cut off or scrolls sideways. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import type { Page } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
const SMALLEST_TARGET = 24;

/** Returns the violations of WCAG 2.2 AA that axe finds. No rule is off. */
export async function violations(page: Page): Promise<string[]> {
  if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(AXE);
  return page.evaluate(async (tags) => {
    const axe = (window as any).axe;
    const { violations } = await axe.run(document, { runOnly: { type: "tag", values: tags }, resultTypes: ["violations"] });
    return violations.flatMap((rule: any) => rule.nodes.map((node: any) => `${rule.id}: ${node.html.slice(0, 160)} ${node.failureSummary}`));
  }, TAGS);
}

/** Returns the targets that are smaller than 24 px, and what is cut off or makes the page scroll sideways. */
export async function misfits(page: Page): Promise<string[]> {
  return page.evaluate((smallest) => {
    const found: string[] = [];
    const shown = (element: Element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });
    const told = (element: Element) => element.outerHTML.slice(0, 120);
    for (const target of document.querySelectorAll("a[href], button, input, select, [role=menuitem], [role=tab]")) {
      const box = target.getBoundingClientRect();
      const isInText = target.matches("p a");
      if (!shown(target) || isInText || target.closest(".cs-skip")) continue;
      if (box.width < smallest - 0.01 || box.height < smallest - 0.01) {
        found.push(`a target of ${box.width.toFixed(1)} × ${box.height.toFixed(1)} px: ${told(target)}`);
      }
    }
    for (const element of document.querySelectorAll<HTMLElement>("html, body, body *")) {
      if (!shown(element) || element.closest(".cs-hidden, svg, select")) continue;
      const overflow = getComputedStyle(element).overflowX;
      const isCut = element.scrollWidth > element.clientWidth + 1 && element.clientWidth > 0;
      if (isCut && overflow !== "visible" && !(element instanceof HTMLInputElement)) found.push(`cut off or scrolling sideways: ${told(element)}`);
    }
    if (document.documentElement.scrollWidth > innerWidth) {
      const wide = [...document.querySelectorAll("body *")].filter((element) => element.getBoundingClientRect().right > innerWidth + 1 || element.getBoundingClientRect().left < -1);
      found.push(`the page scrolls sideways: ${wide.slice(0, 3).map(told).join(" ")}`);
    }
    return found;
  }, SMALLEST_TARGET);
}
