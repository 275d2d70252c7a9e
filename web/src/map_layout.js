// Where things stand on the map: degrees to a plane, relays of one region beside each other, arcs between them. No DOM.

const GOLDEN = Math.PI * (3 - Math.sqrt(5));
const LEAST_DEGREES = 36;

/** The meridian in the middle, so that the widest empty stretch of the globe is where the map is cut. */
export function middleMeridian(longitudes) {
  const sorted = [...new Set(longitudes.map((degrees) => ((degrees % 360) + 360) % 360))].sort((one, other) => one - other);
  if (!sorted.length) return 0;
  let [widest, cut] = [-1, 180];
  sorted.forEach((from, index) => {
    const gap = index + 1 < sorted.length ? sorted[index + 1] - from : sorted[0] + 360 - from;
    if (gap > widest) [widest, cut] = [gap, from + gap / 2];
  });
  return wrapped(cut + 180);
}

/** Degrees as -180 to 180. */
export function wrapped(degrees) {
  return ((((degrees + 180) % 360) + 360) % 360) - 180;
}

/** A projection of places, `{latitude, longitude}` each, that fills a box with them. */
export function projection(places, width, height) {
  const middle = middleMeridian(places.map((place) => place.longitude));
  const east = places.map((place) => wrapped(place.longitude - middle));
  const north = places.map((place) => mercator(place.latitude));
  const centre = (values) => (values.length ? (Math.min(...values) + Math.max(...values)) / 2 : 0);
  const span = (values) => (values.length ? Math.max(...values) - Math.min(...values) : 0);
  const [centreX, centreY] = [centre(east), centre(north)];
  // A third more than what is needed: names and arcs stand outside the places.
  const degrees = Math.max(LEAST_DEGREES, span(east) * 1.3, (span(north) * 1.5 * width) / height);
  const scale = width / degrees;
  return {
    middle,
    width,
    height,
    scale,
    x: (longitude) => width / 2 + (wrapped(longitude - middle) - centreX) * scale,
    // Outlines go on over the cut.
    xOf: (longitude, turns) => width / 2 + (longitude - middle - centreX + 360 * turns) * scale,
    y: (latitude) => height / 2 - (mercator(latitude) - centreY) * scale,
  };
}

function mercator(latitude) {
  const bounded = Math.max(-78, Math.min(80, latitude)) * (Math.PI / 180);
  return (Math.log(Math.tan(Math.PI / 4 + bounded / 2)) * 180) / Math.PI;
}

/** Points for all nodes by id: those of one place in a spiral around it, those of no known place in a row below. */
export function points(nodes, project, radius) {
  const found = new Map();
  const groups = new Map();
  for (const node of nodes) {
    const known = Number.isFinite(node.latitude) && Number.isFinite(node.longitude);
    const key = known ? `${node.latitude} ${node.longitude}` : "";
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(node);
  }
  for (const [key, group] of groups) {
    group.sort((one, other) => (one.id < other.id ? -1 : 1));
    group.forEach((node, index) => {
      if (!key) {
        const step = Math.min(110, (project.width - 40) / group.length);
        const x = project.width / 2 + (index - (group.length - 1) / 2) * step;
        found.set(node.id, { x, y: project.height - 28, side: 0 });
        return;
      }
      const away = group.length === 1 ? 0 : radius * 1.25 * Math.sqrt(index + 0.6);
      const angle = index * GOLDEN;
      const x = project.x(node.longitude) + away * Math.cos(angle);
      // Names of neighbours stand away from each other: -1 to the left, 1 to the right, 0 above.
      const side = group.length === 1 ? 0 : Math.cos(angle) < 0 ? -1 : 1;
      found.set(node.id, { x, y: project.y(node.latitude) + away * Math.sin(angle), side });
    });
  }
  return found;
}

/** The arc of one direction: it bends to the sender's right, so that the two of a pair lie beside each other. */
export function arc(from, to, gap) {
  const [dx, dy] = [to.x - from.x, to.y - from.y];
  const length = Math.hypot(dx, dy) || 1;
  const [ux, uy] = [dx / length, dy / length];
  const room = Math.min(gap, length / 3);
  const bend = Math.min(46, 8 + length * 0.1);
  const [startX, startY] = [from.x + ux * room - uy * 2, from.y + uy * room + ux * 2];
  const [endX, endY] = [to.x - ux * room - uy * 2, to.y - uy * room + ux * 2];
  const [midX, midY] = [(from.x + to.x) / 2 - uy * bend, (from.y + to.y) / 2 + ux * bend];
  const number = (value) => Math.round(value * 10) / 10;
  const on = (part) => {
    const [first, second, third] = [(1 - part) ** 2, 2 * part * (1 - part), part ** 2];
    return { x: number(first * startX + second * midX + third * endX), y: number(first * startY + second * midY + third * endY) };
  };
  return {
    d: `M${number(startX)} ${number(startY)}Q${number(midX)} ${number(midY)} ${number(endX)} ${number(endY)}`,
    length,
    // Where its measure may stand, best first: nearer to where it ends, so that of two directions each has its own.
    spots: [0.6, 0.48, 0.72, 0.36].map(on),
  };
}

/** Labels that find room, in their order: each `{text, spots: [{x, y, anchor}], size, always}` gets the first free spot. */
export function roomed(labels, width) {
  const taken = [];
  const found = [];
  for (const label of labels) {
    const long = label.text.length * label.size * 0.56;
    const boxes = label.spots.map((spot) => {
      const x = spot.anchor ? spot.x : Math.max(long / 2 + 3, Math.min(width - long / 2 - 3, spot.x));
      const left = spot.anchor === "start" ? x : spot.anchor === "end" ? x - long : x - long / 2;
      return { x, y: spot.y, anchor: spot.anchor ?? "middle", left, right: left + long, top: spot.y - label.size, bottom: spot.y + 3 };
    });
    const inside = boxes.filter((box) => box.left >= 0 && box.right <= width);
    const last = label.always ? (inside[0] ?? boxes[0]) : null;
    const free = inside.find((box) => !taken.some((other) => overlap(box, other))) ?? last;
    if (!free) continue;
    taken.push(free);
    found.push({ ...label, x: free.x, y: free.y, anchor: free.anchor });
  }
  return found;
}

function overlap(one, other) {
  return one.left < other.right && other.left < one.right && one.top < other.bottom && other.top < one.bottom;
}
