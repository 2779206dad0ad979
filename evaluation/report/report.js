// A crosshair and the values under the pointer, for every chart that carries data-hover.
"use strict";
document.querySelectorAll("svg[data-hover]").forEach((svg) => {
  const chart = JSON.parse(svg.dataset.hover);
  const tip = Object.assign(document.createElement("div"), { className: "tip", hidden: true });
  const cross = document.createElementNS(svg.namespaceURI, "line");
  cross.setAttribute("class", "cross");
  cross.setAttribute("visibility", "hidden");
  svg.append(cross);
  svg.parentNode.append(tip);

  const bend = (scale, value) =>
    scale.kind === "log" ? Math.log10(Math.max(value, 1e-12))
      : scale.kind === "error" ? -Math.log10(Math.max(1 - value, chart.floor)) : value;
  const place = (scale, value) =>
    scale.from + ((bend(scale, value) - scale.a) / (scale.b - scale.a)) * (scale.to - scale.from);
  const spell = (value, form) =>
    form === "percent" ? (100 * value).toFixed(2) + " %"
      : value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(2)
      : Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(5));

  function nearest(line, at) {
    let best = 0;
    line.x.forEach((value, i) => {
      if (Math.abs(place(chart.x, value) - at) < Math.abs(place(chart.x, line.x[best]) - at)) best = i;
    });
    return best;
  }

  function show(event) {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * 400;
    if (at < chart.x.from - 6 || at > chart.x.to + 6) return hide();
    const found = chart.lines.map((line) => [line, nearest(line, at)]);
    const x = found[0][0].x[found[0][1]];
    const middle = place(chart.x, x);
    cross.setAttribute("x1", middle);
    cross.setAttribute("x2", middle);
    cross.setAttribute("y1", chart.y.to);
    cross.setAttribute("y2", chart.y.from);
    cross.setAttribute("visibility", "visible");
    tip.replaceChildren(...[[null, chart.xLabel + " " + spell(x, chart.xForm)]].concat(
      found.map(([line, i]) => [line, spell(line.y[i], chart.yForm)])
    ).map(([line, text]) => {
      const row = document.createElement("div");
      row.textContent = line && line.name ? line.name + "  " + text : text;
      if (line) row.className = line.colour;
      return row;
    }));
    tip.hidden = false;
    const left = (middle / 400) * box.width;
    const flip = left > box.width / 2;
    tip.style.left = (flip ? left - tip.offsetWidth - 12 : left + 12) + "px";
    tip.style.top = box.top - svg.parentNode.getBoundingClientRect().top + 8 + "px";
  }
  function hide() {
    tip.hidden = true;
    cross.setAttribute("visibility", "hidden");
  }
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
});
