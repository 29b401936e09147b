"use strict";
// Sort a table by a click on a header: numbers descending, labels ascending; a second click reverses.
const textOf = (row, column) => {
  const cell = row.cells[column];
  return (cell.querySelector("summary") || cell).textContent.trim();
};
const numberOf = (text) => parseFloat(text.replaceAll(",", "").replace("−", "-"));
const byNumber = (a, b, sign) => {
  const x = numberOf(a), y = numberOf(b);
  if (Number.isNaN(x) || Number.isNaN(y)) {
    return Number.isNaN(x) - Number.isNaN(y) || a.localeCompare(b); // those without a number come last
  }
  return sign * (x - y);
};
const byLabel = (a, b, sign) => sign * a.localeCompare(b, undefined, { numeric: true });
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const [first, second] = column ? ["descending", "ascending"] : ["ascending", "descending"];
    const compare = column ? byNumber : byLabel;
    const sort = () => {
      const order = head.getAttribute("aria-sort") === first ? second : first;
      const sign = order === "ascending" ? 1 : -1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", order);
      body.append(...[...body.rows].sort(
        (a, b) => compare(textOf(a, column), textOf(b, column), sign)));
    };
    head.tabIndex = 0;
    head.addEventListener("click", sort);
    head.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") {
        event.preventDefault();
        sort();
      }
    });
  });
  table.classList.add("ready");
}
