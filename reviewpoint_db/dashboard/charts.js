"use strict";
// Charts of the last five minutes, drawn as SVG paths.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 96;
const MARGIN = 6;
// Seconds without a sample, of which there is one every two, after which a line is interrupted.
const GAP = 3;

class Chart {
  // `lines`: [label, class, value of a sample] for each line; `show` writes a value.
  constructor(title, lines, show, least) {
    this.title = title;
    this.lines = lines;
    this.show = show;
    this.least = least;
    this.svg = document.createElementNS(SVG, "svg");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
    this.svg.setAttribute("preserveAspectRatio", "none");
    this.svg.setAttribute("role", "img");
    this.paths = lines.map(([, kind]) => {
      const path = document.createElementNS(SVG, "path");
      path.setAttribute("class", kind);
      this.svg.append(path);
      return path;
    });
    this.keys = lines.map(([, kind]) => element("span", { class: `key ${kind}` }));
    this.top = element("span", { class: "top", "aria-hidden": "true" });
    this.figure = element(
      "figure",
      {},
      element("figcaption", {}, element("strong", {}, title), ...this.keys),
      element("div", { class: "plot" }, this.svg, this.top),
      element("div", { class: "axis", "aria-hidden": "true" }, element("span"), element("span", {}, "now")),
    );
    this.begin = this.figure.lastElementChild.firstElementChild;
  }

  draw(samples, span) {
    const last = samples.length ? samples[samples.length - 1].at : 0;
    const series = this.lines.map(([, , read]) => samples.map((each) => [each.at, read(each)]));
    const known = series.flat().map(([, value]) => value).filter((value) => value !== null);
    const ceiling = Math.max(this.least, ...known);
    series.forEach((points, index) => {
      this.paths[index].setAttribute("d", this.path(points, last, span, ceiling));
      const present = points.length ? points[points.length - 1][1] : null;
      const label = this.lines[index][0];
      setText(this.keys[index], `${label} ${present === null ? "–" : this.show(present)}`);
    });
    setText(this.top, this.show(ceiling));
    setText(this.begin, `${seconds(span)} ago`);
    const words = this.keys.map((key) => key.textContent).join(", ");
    this.svg.setAttribute("aria-label", `${this.title}: now ${words}; highest ${known.length ? this.show(Math.max(...known)) : "–"}`);
  }

  path(points, last, span, ceiling) {
    let drawn = "";
    let connected = false;
    let before = null;
    for (const [at, value] of points) {
      if (before !== null && at - before > GAP) connected = false; // nobody knows what was meanwhile
      before = at;
      if (value === null) {
        connected = false;
        continue;
      }
      const x = (WIDTH * (1 - (last - at) / span)).toFixed(1);
      const y = (HEIGHT - MARGIN - (value / ceiling) * (HEIGHT - 2 * MARGIN)).toFixed(1);
      // A lone point is a line of no length, which round caps make a dot.
      drawn += connected ? `L${x} ${y}` : `M${x} ${y}h0`;
      connected = true;
    }
    return drawn;
  }
}
