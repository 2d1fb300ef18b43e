// The page's start. The way of a number: contract (shapes) ← api, live (HTTP, WebSocket) → feeds (who wants what) →
// series (snapshot and deltas) → scale, format, palette (pure) → ui/ (charts, cards, lists). `app` wires it, `page` is what
// all parts share, `view` is what is looked at and the URL.
import "uplot/dist/uPlot.min.css";
import "./style/tokens.css";
import "./style/page.css";
import "./style/bar.css";
import "./style/popover.css";
import "./style/charts.css";
import "./style/panels.css";
import "./style/explain.css";
import "./style/wall.css";
import { onKeyNeeded } from "./api";
import { App } from "./app";
import { askKey } from "./ui/dialogs";

onKeyNeeded(askKey);
new App().start();
