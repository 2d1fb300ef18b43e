// The colours of series: eight that people with any colour vision tell apart, tuned to each background.
// None is red: red means bad and nothing else does. A value keeps its place, hence its colour, in every chart.

export type Scheme = "light" | "dark";

/** What series are drawn on; the style sheet's `--ground` says the same. */
export const GROUND: Record<Scheme, string> = { light: "#ffffff", dark: "#111518" };

export const SERIES: Record<Scheme, string[]> = {
  light: ["#2050d5", "#bf8802", "#1d573c", "#9d72fb", "#5c98b9", "#891288", "#9e650e", "#737373"],
  dark: ["#50a3fd", "#cd9c13", "#1c7f3f", "#865aeb", "#b3c6e1", "#9b559a", "#ecc67b", "#989898"],
};

export interface Stroke {
  colour: string;
  /** Past the eighth place colours come again, dashed. */
  dashed: boolean;
}

export function strokeAt(place: number, scheme: Scheme): Stroke {
  const set = SERIES[scheme];
  return { colour: set[place % set.length]!, dashed: place >= set.length };
}

/** Gives each value of a dimension its place: the most frequent ones first, others as they come. */
export class Places {
  #known = new Map<string, Map<string, number>>();

  seed(dimension: string, values: string[]): void {
    for (const v of values) this.of(dimension, v);
  }

  of(dimension: string, value: string): number {
    let places = this.#known.get(dimension);
    if (!places) this.#known.set(dimension, (places = new Map()));
    let place = places.get(value);
    if (place === undefined) places.set(value, (place = places.size));
    return place;
  }
}
