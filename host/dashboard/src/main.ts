// The page's start.
import "uplot/dist/uPlot.min.css";
import "./style/tokens.css";
import "./style/page.css";
import "./style/bar.css";
import "./style/charts.css";
import "./style/panels.css";
import { onKeyNeeded } from "./api";
import { App } from "./app";
import { askKey } from "./ui/dialogs";

onKeyNeeded(askKey);
new App().start();
