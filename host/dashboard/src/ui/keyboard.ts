// The page's own keys. Those of a chart in focus are the chart's.
import type { Page } from "../page";
import { COMPARISONS, RANGES } from "../view";

export interface KeyActions {
  filters(): void;
  anomalies(): void;
  definitions(): void;
  wall(): void;
  help(): void;
  escape(): void;
}

export function listenToKeys(page: Page, actions: KeyActions): void {
  document.addEventListener("keydown", (e) => {
    const target = e.target as HTMLElement;
    if (e.ctrlKey || e.metaKey || e.altKey || target.closest("input, select, textarea, [role=dialog]")) return;
    if (target.closest("dialog") && e.key !== "?" && e.key !== "d") return;
    const range = RANGES[Number(e.key) - 1];
    if (range) page.navigate({ range, span: null });
    else if (e.key === "/") actions.filters();
    else if (e.key === "a") actions.anomalies();
    else if (e.key === "d") actions.definitions();
    else if (e.key === "w") actions.wall();
    else if (e.key === "?") actions.help();
    else if (e.key === "z") page.zoomOut();
    else if (e.key === "t") page.navigate({ theme: page.scheme === "dark" ? "light" : "dark" }, false);
    else if (e.key === "s") page.navigate({ by: nextSplit(page) });
    else if (e.key === "%") page.navigate({ share: !page.view.share });
    else if (e.key === "c") page.navigate({ compare: next([null, ...COMPARISONS], page.view.compare) });
    else if (e.key === "Escape") actions.escape();
    else return;
    e.preventDefault();
  });
}

function nextSplit(page: Page): string | null {
  return next([null, ...page.catalog.dimensions.map((d) => d.name)], page.view.by);
}

function next<T>(all: T[], now: T): T {
  return all[(all.indexOf(now) + 1) % all.length]!;
}
