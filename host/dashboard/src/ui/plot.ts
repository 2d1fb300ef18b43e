// One uPlot: how lines, axes and marks are drawn. Knows colours and times, not where data comes from.
import uPlot from "uplot";
import type { Anomaly, Expectation } from "../contract";
import { tick, type Figure } from "../format";
import type { Stroke } from "../palette";
import { extremes, lonely, runs, timeLabel, valueRange } from "../scale";

export interface PlotLine extends Stroke {
  name: string;
  anomalies: Anomaly[];
  band: Expectation[];
  column: (number | null)[];
  /** What the line was some time before, in the same columns. */
  past: (number | null)[] | null;
}

export interface PlotModel {
  figure: Figure;
  fromZero: boolean;
  stepMs: number;
  times: number[];
  lines: PlotLine[];
  /** From here on points can still change. */
  provisionalFrom: number;
  /** Times that something is to be said of. */
  marks: Mark[];
  /** Times of which the readout says something: small marks on the axis. */
  happenings: Mark[];
  /** The point that somebody asked about. */
  asked: number | null;
  window: { from: number; to: number };
}

/** Text beside a line. */
export interface Mark {
  t: number;
  text: string;
}

export interface PlotEvents {
  point(t: number | null, nearest: number | null): void;
  /** A click at the point that was pointed at last. */
  choose(): void;
  zoom(from: number, to: number): void;
  zoomed(): boolean;
  zoomOut(): void;
}

/** The style sheet's tokens, for what is drawn on canvas. */
interface Ink {
  text: string;
  grid: string;
  bad: string;
  ground: string;
  accent: string;
  font: string;
  /** Of the font, in CSS pixels. */
  size: number;
}

function ink(): Ink {
  const css = getComputedStyle(document.body);
  const v = (name: string): string => css.getPropertyValue(name).trim();
  return { text: v("--text-2"), grid: v("--grid"), bad: v("--bad"), ground: v("--ground"), accent: v("--accent"), font: `${v("--plot-size")} ${v("--font")}`, size: Number.parseFloat(v("--plot-size")) };
}

const AXIS_WIDTH_EM = 56 / 12; // the room at the left holds `$100k`
const AXIS_MARK_PX = 4;
const DRAG_PX_MIN = 8;
const DOUBLE_CLICK_MS = 300;
const PADDING_RIGHT_PX = 12;
const LABEL_HALF_PX = 20; // half of a time's width: one that would be cut off at the edge is left out
const BAND_ALPHA = "1f";
const ODD_BAND_ALPHA = "2e";
const PAST_ALPHA = "73";
const PROVISIONAL_ALPHA = "59"; // of 255: what can still change is lighter

export class Plot {
  readonly u: uPlot;
  model: PlotModel;
  #ink = ink();
  #yHeld: [number, number] | null = null;
  #holdY = false;
  /** The crosshair also moves by other charts and by redrawing: only a pointer in here points. */
  #inside = false;
  #click = 0;

  constructor(host: HTMLElement, model: PlotModel, events: PlotEvents) {
    this.model = model;
    this.u = new uPlot(this.#options(host, events), this.#data(), host);
    this.u.over.addEventListener("mouseenter", () => (this.#inside = true));
    this.u.over.addEventListener("mouseleave", () => {
      this.#inside = false;
      events.point(null, null);
    });
    this.u.over.addEventListener("click", (e) => this.#clicked(e, events));
  }

  /** uPlot keeps clicks that end a drag to itself. Zoomed in, a second click would mean to go back. */
  #clicked(e: MouseEvent, events: PlotEvents): void {
    clearTimeout(this.#click);
    if (e.detail < 2) this.#click = window.setTimeout(() => events.choose(), events.zoomed() ? DOUBLE_CLICK_MS : 0);
  }

  /** New data in the same lines. With `hold` neither axis moves. */
  update(model: PlotModel, hold: boolean): void {
    this.model = model;
    this.#holdY = hold;
    const { from, to } = model.window;
    this.u.batch(() => {
      this.u.setData(this.#data(), false);
      this.u.setScale("x", { min: from, max: to });
      this.u.redraw(true, false);
    });
    this.#holdY = false;
  }

  resize(width: number, height: number): void {
    if (width !== this.u.width || height !== this.u.height) this.u.setSize({ width, height });
  }

  /** Shows another chart's crosshair, or none. */
  crosshair(t: number | null): void {
    const { from, to } = this.model.window;
    if (t === null || t < from || t > to) this.u.setCursor({ left: -10, top: -10 }, false);
    else this.u.setCursor({ left: this.u.valToPos(t, "x"), top: -1e4 }, false);
  }

  destroy(): void {
    clearTimeout(this.#click);
    this.u.destroy();
  }

  #data(): uPlot.AlignedData {
    return [this.model.times, ...this.model.lines.map((l) => l.column)] as uPlot.AlignedData;
  }

  #options(host: HTMLElement, events: PlotEvents): uPlot.Options {
    const axis = { stroke: this.#ink.text, font: this.#ink.font, ticks: { show: false } };
    return {
      width: host.clientWidth,
      height: host.clientHeight,
      ms: 1,
      padding: [8, PADDING_RIGHT_PX, 0, 0],
      legend: { show: false },
      scales: {
        x: { range: () => [this.model.window.from, this.model.window.to] },
        y: { range: (_u, low, high) => this.#rangeY(low, high) },
      },
      axes: [
        { ...axis, grid: { show: false }, size: 14 + this.#ink.size, gap: 6, space: 88, values: (u, at, _i, _space, incr) => at.map((t) => (fits(u, t) ? timeLabel(t, incr) : null)) },
        {
          ...axis,
          grid: { stroke: this.#ink.grid, width: 1 },
          size: AXIS_WIDTH_EM * this.#ink.size,
          gap: 8,
          space: 32,
          values: (_u, at) => at.map((v) => (v === null ? null : tick(v, this.model.figure))),
        },
      ],
      series: [{}, ...this.model.lines.map((line, i) => this.#series(line, i))],
      cursor: {
        y: false,
        drag: { x: true, y: false, setScale: false, dist: DRAG_PX_MIN },
        points: { size: 9, width: 2, stroke: this.#ink.ground, fill: (_u, i) => this.model.lines[i - 1]?.colour ?? "" },
        bind: {
          dblclick: () => () => {
            events.zoomOut();
            return null;
          },
        },
      },
      hooks: {
        setCursor: [(u) => this.#pointed(u, events)],
        setSelect: [
          (u) => {
            const { left, width } = u.select;
            if (width < DRAG_PX_MIN) return;
            u.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            events.zoom(u.posToVal(left, "x"), u.posToVal(left + width, "x"));
          },
        ],
        drawAxes: [(u) => this.#drawBehind(u)],
        draw: [(u) => this.#drawRings(u)],
      },
    };
  }

  #series(line: PlotLine, index: number): uPlot.Series {
    const alone = this.model.lines.length === 1;
    return {
      width: 1.5,
      stroke: (u) => this.#fading(u, index),
      ...(line.dashed ? { dash: [5, 3] } : {}),
      ...(alone && this.model.fromZero && line.band.length === 0 ? { fill: `${line.colour}12` } : {}),
      spanGaps: false,
      points: { show: true, size: 4, width: 0, fill: line.colour, filter: (u, i, show) => (show ? lonely(u.data[i]!) : null) },
    };
  }

  /** The line's colour up to the last closed point, lighter from there on. */
  #fading(u: uPlot, index: number): string | CanvasGradient {
    const { colour } = this.model.lines[index]!;
    const { from, to } = this.model.window;
    const edge = this.model.provisionalFrom - this.model.stepMs;
    if (edge >= to || u.bbox.width === 0) return colour;
    if (edge <= from) return colour + PROVISIONAL_ALPHA;
    const at = (edge - from) / (to - from);
    const gradient = u.ctx.createLinearGradient(u.bbox.left, 0, u.bbox.left + u.bbox.width, 0);
    gradient.addColorStop(0, colour);
    gradient.addColorStop(at, colour);
    gradient.addColorStop(at, colour + PROVISIONAL_ALPHA);
    gradient.addColorStop(1, colour + PROVISIONAL_ALPHA);
    return gradient;
  }

  #rangeY(low: number | null, high: number | null): [number, number] {
    if (!this.#holdY || !this.#yHeld) {
      const [least, most] = extremes(this.model.lines.flatMap((l) => (l.past ? [l.past] : [])), low, high);
      this.#yHeld = valueRange(least, most, this.model.fromZero);
    }
    return this.#yHeld;
  }

  #pointed(u: uPlot, events: PlotEvents): void {
    const { idx, top, left } = u.cursor;
    if (!this.#inside || idx === null || idx === undefined || left === undefined || left < 0) return;
    let nearest: number | null = null;
    let best = Number.POSITIVE_INFINITY;
    this.model.lines.forEach((line, i) => {
      const v = line.column[idx];
      if (v === null || v === undefined) return;
      const away = Math.abs(u.valToPos(v, "y") - (top ?? 0));
      if (away < best) [best, nearest] = [away, i];
    });
    events.point(this.model.times[idx] ?? null, nearest);
  }

  /** Bands of what was expected, and marks: behind the lines. */
  #drawBehind(u: uPlot): void {
    const { ctx } = u;
    ctx.save();
    clip(u);
    for (const line of this.model.lines) {
      // Alone, a line has its whole band; among others only where something was odd, else bands hide the lines.
      const alone = this.model.lines.length === 1 && line.band.length > 0;
      const band = alone ? line.band : line.anomalies.map((a): Expectation => [a.t, a.expected, a.lower, a.upper]);
      ctx.fillStyle = line.colour + (alone ? BAND_ALPHA : ODD_BAND_ALPHA);
      for (const run of runs(band, this.model.window, this.model.stepMs)) this.#band(u, run);
    }
    for (const l of this.model.lines) if (l.past) this.#past(u, l.past, l.colour + PAST_ALPHA);
    if (this.model.asked !== null) {
      ctx.strokeStyle = this.#ink.accent;
      ctx.lineWidth = devicePixelRatio;
      upright(u, this.model.asked);
    }
    ctx.strokeStyle = this.#ink.text;
    ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.lineWidth = devicePixelRatio;
    ctx.fillStyle = this.#ink.text;
    ctx.font = this.#ink.font.replace(`${this.#ink.size}px`, `${this.#ink.size * devicePixelRatio}px`);
    ctx.textBaseline = "top";
    for (const { t, text } of this.model.marks) {
      if (t < this.model.window.from || t > this.model.window.to) continue;
      const x = upright(u, t);
      const left = x < u.bbox.left + u.bbox.width / 2;
      ctx.textAlign = left ? "left" : "right";
      ctx.fillText(text, x + (left ? 4 : -4) * devicePixelRatio, u.bbox.top);
    }
    ctx.fillStyle = this.#ink.text;
    for (const { t } of this.model.happenings) this.#onAxis(u, t);
    ctx.restore();
  }

  #onAxis(u: uPlot, t: number): void {
    const { ctx, bbox } = u;
    const [x, y, r] = [u.valToPos(t, "x", true), bbox.top + bbox.height, AXIS_MARK_PX * devicePixelRatio];
    ctx.beginPath();
    ctx.moveTo(x - r, y);
    ctx.lineTo(x, y - 1.5 * r);
    ctx.lineTo(x + r, y);
    ctx.fill();
  }

  #past(u: uPlot, column: (number | null)[], colour: string): void {
    const { ctx } = u;
    ctx.strokeStyle = colour;
    ctx.lineWidth = devicePixelRatio;
    ctx.lineJoin = "round";
    ctx.beginPath();
    let down = false;
    column.forEach((v, i) => {
      if (v !== null) {
        const [x, y] = [u.valToPos(this.model.times[i]!, "x", true), u.valToPos(v, "y", true)];
        if (down) ctx.lineTo(x, y);
        else ctx.moveTo(x, y);
      }
      down = v !== null;
    });
    ctx.stroke();
  }

  #band(u: uPlot, run: Expectation[]): void {
    const { ctx, bbox } = u;
    const least = (run.length < 3 ? 3 : 0) * devicePixelRatio; // one minute of 24 hours is narrower than can be seen
    const y = (v: number | null, open: number): number => (v === null ? open : u.valToPos(v, "y", true));
    const spots = run.map(([t, , lower, upper]) => ({ x: u.valToPos(t, "x", true), low: y(lower, bbox.top + bbox.height), high: y(upper, bbox.top) }));
    const first = spots[0]!;
    const last = spots.at(-1)!;
    ctx.beginPath();
    ctx.moveTo(first.x - least, first.high);
    for (const s of spots) ctx.lineTo(s.x, s.high);
    ctx.lineTo(last.x + least, last.high);
    ctx.lineTo(last.x + least, last.low);
    for (const s of spots.toReversed()) ctx.lineTo(s.x, s.low);
    ctx.lineTo(first.x - least, first.low);
    ctx.fill();
  }

  #drawRings(u: uPlot): void {
    const { ctx } = u;
    const r = 4 * devicePixelRatio;
    ctx.save();
    clip(u, r);
    ctx.strokeStyle = this.#ink.bad;
    ctx.lineWidth = 1.5 * devicePixelRatio;
    for (const line of this.model.lines) {
      let lastX = -Infinity;
      for (const a of line.anomalies) {
        if (a.value === null || a.t < this.model.window.from || a.t > this.model.window.to) continue;
        const x = u.valToPos(a.t, "x", true);
        if (x - lastX < 2 * r) continue; // rings on rings are a blot
        lastX = x;
        ctx.beginPath();
        ctx.arc(x, u.valToPos(a.value, "y", true), r, 0, 2 * Math.PI);
        ctx.stroke();
      }
    }
    ctx.restore();
  }
}

function clip(u: uPlot, room = 0): void {
  const { left, top, width, height } = u.bbox;
  u.ctx.beginPath();
  u.ctx.rect(left - room, top - room, width + 2 * room, height + 2 * room);
  u.ctx.clip();
}

/** A line from top to bottom; says where it stands. */
function upright(u: uPlot, t: number): number {
  const x = Math.round(u.valToPos(t, "x", true)) + 0.5;
  u.ctx.beginPath();
  u.ctx.moveTo(x, u.bbox.top);
  u.ctx.lineTo(x, u.bbox.top + u.bbox.height);
  u.ctx.stroke();
  return x;
}

function fits(u: uPlot, t: number): boolean {
  return u.valToPos(t, "x") + LABEL_HALF_PX <= u.bbox.width / devicePixelRatio + PADDING_RIGHT_PX;
}
