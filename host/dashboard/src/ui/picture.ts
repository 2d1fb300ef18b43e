// A chart as a picture to hand on: title, unit and time above, the plot in the page's colours, the legend below.
import { spanText, zoneName } from "../time";
import { h } from "./dom";
import { Plot, type PlotModel } from "./plot";

const WIDTH_PX = 960;
const PLOT_HEIGHT_PX = 320;
const EDGE_PX = 16;
const HEAD_PX = 44;
const LEGEND_COLUMNS = 4;
const LEGEND_ROW_PX = 22;
const NAME_CHARS_MAX = 28;

export interface PictureWords {
  title: string;
  unit: string;
  /** What the faint lines are. */
  faint: string | null;
}

export async function picture(words: PictureWords, model: PlotModel): Promise<Blob> {
  const plot = await drawn(model);
  const legend = model.lines.length > 1 || Boolean(model.lines[0]?.name && model.lines[0].name !== words.title);
  const items = legend ? model.lines : [];
  const rows = Math.ceil((items.length + (words.faint ? 1 : 0)) / LEGEND_COLUMNS);
  const canvas = document.createElement("canvas");
  const r = devicePixelRatio;
  canvas.width = WIDTH_PX * r;
  canvas.height = (HEAD_PX + PLOT_HEIGHT_PX + rows * LEGEND_ROW_PX + EDGE_PX) * r;
  const c = canvas.getContext("2d")!;
  const css = getComputedStyle(document.documentElement);
  const token = (name: string): string => css.getPropertyValue(name).trim();
  c.fillStyle = token("--ground");
  c.fillRect(0, 0, canvas.width, canvas.height);
  c.drawImage(plot, EDGE_PX * r, HEAD_PX * r);
  c.scale(r, r);
  const write = (text: string, x: number, y: number, colour: string, font: string): number => {
    c.font = `${font} ${token("--font")}`;
    c.fillStyle = token(colour);
    c.fillText(text, x, y);
    return c.measureText(text).width;
  };
  const titled = write(words.title, EDGE_PX, 28, "--text", "600 16px");
  write(words.unit, EDGE_PX + titled + 8, 28, "--text-2", "12px");
  c.textAlign = "right";
  write(`${spanText(model.window.from, model.window.to + model.stepMs)} ${zoneName(model.window.to)}`, WIDTH_PX - EDGE_PX, 28, "--text-2", "12px");
  c.textAlign = "left";
  const place = (i: number): [number, number] => [
    EDGE_PX + 56 + (i % LEGEND_COLUMNS) * ((WIDTH_PX - 2 * EDGE_PX - 56) / LEGEND_COLUMNS),
    HEAD_PX + PLOT_HEIGHT_PX + Math.floor(i / LEGEND_COLUMNS) * LEGEND_ROW_PX + 16,
  ];
  items.forEach((line, i) => {
    const [x, y] = place(i);
    c.fillStyle = line.colour;
    if (line.dashed) [0, 7].forEach((dx) => c.fillRect(x + dx, y - 5.5, 5, 3));
    else c.fillRect(x, y - 5.5, 12, 3);
    write(line.name.length > NAME_CHARS_MAX ? `${line.name.slice(0, NAME_CHARS_MAX - 1)}…` : line.name, x + 20, y, "--text", "12px");
  });
  if (words.faint) write(`faint: ${words.faint}`, ...place(items.length), "--text-2", "12px");
  return new Promise((done, failed) => canvas.toBlob((b) => (b ? done(b) : failed(new Error("no picture"))), "image/png"));
}

/** The plot of its own size, whatever the screen's. */
async function drawn(model: PlotModel): Promise<HTMLCanvasElement> {
  const host = h("div", { class: "off-screen" });
  host.style.width = `${WIDTH_PX - 2 * EDGE_PX}px`;
  host.style.height = `${PLOT_HEIGHT_PX}px`;
  document.body.append(host);
  const nothing = (): void => {};
  const plot = new Plot(host, { ...model, asked: null }, { point: nothing, choose: nothing, zoom: nothing, zoomed: () => false, zoomOut: nothing });
  await new Promise(requestAnimationFrame);
  const { canvas } = plot.u.ctx;
  plot.destroy();
  host.remove();
  return canvas;
}
