// Draws a panel of a dashboard as Grafana does: the answers to its queries go through the
// transformations that it names, and the result into the flame graph. Rows that are a flame graph
// already, as the Infinity data source has them, go there as they are. What is drawn on the canvas
// is noted, and stands in the page as JSON, for the test to read.
import {
  arrayToDataFrame,
  createTheme,
  standardTransformers,
  standardTransformersRegistry,
  toDataFrame,
  transformDataFrame,
} from "@grafana/data";
import { FlameGraph } from "@grafana/flamegraph";
import { createRoot } from "react-dom/client";

const { panel, answers, rows } = JSON.parse(document.getElementById("asked").textContent);

// Grafana's server makes such frames of an instant query in table format
function frame(refId, vector) {
  const labels = Object.keys(vector[0]?.metric ?? {}).sort();
  return toDataFrame({
    refId,
    fields: [
      { name: "Time", type: "time", values: vector.map(({ value }) => 1000 * value[0]) },
      ...labels.map((name) => ({
        name,
        type: "string",
        values: vector.map(({ metric }) => metric[name]),
      })),
      {
        name: `Value #${refId}`,
        type: "number",
        values: vector.map(({ value }) => Number(value[1])),
      },
    ],
  });
}

// the bars and their labels, as the canvas gets them
const drawn = [];
const context = CanvasRenderingContext2D.prototype;
const { rect, fillText, clearRect, fill } = context;
context.clearRect = function (...place) {
  drawn.length = 0;
  return clearRect.apply(this, place);
};
context.rect = function (x, y, width, height) {
  drawn.push({ x, y, width, canvas: this.canvas.width });
  return rect.call(this, x, y, width, height);
};
context.fill = function (...path) {
  if (drawn.length && !path.length) drawn.at(-1).color = this.fillStyle;
  return fill.apply(this, path);
};
context.fillText = function (text, ...place) {
  drawn.at(-1).text = text;
  return fillText.call(this, text, ...place);
};

const theme = createTheme({ colors: { mode: "dark" } });
document.body.style.background = theme.colors.background.primary;
document.body.style.color = theme.colors.text.primary;

function draw(data) {
  createRoot(document.getElementById("panel")).render(
    <FlameGraph data={data} getTheme={() => theme} stickyHeader={false} disableCollapsing />,
  );
  setTimeout(() => {
    document.getElementById("drawn").textContent = JSON.stringify(drawn);
  }, 3000);
}

function drawPanel() {
  const named = panel.transformations.map(({ id }) => id);
  standardTransformersRegistry.setInit(() =>
    Object.values(standardTransformers)
      .filter(({ id }) => named.includes(id))
      .map((transformation) => ({ id: transformation.id, name: transformation.name, transformation })),
  );
  const frames = Object.entries(answers).map(([refId, vector]) => frame(refId, vector));
  transformDataFrame(panel.transformations, frames).subscribe(([data]) => {
    for (const field of data.fields)
      field.config = { ...panel.fieldConfig.defaults, ...field.config };
    draw(data);
  });
}

if (rows) {
  const data = arrayToDataFrame(rows);
  data.fields.find(({ name }) => name === "value").config.unit = "ns";
  draw(data);
} else {
  drawPanel();
}
