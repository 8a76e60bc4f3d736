"use strict";
// Sorting of the table of measurements; without it the page reads just as well. Empty values stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[table.tBodies.length - 1];
  const collator = new Intl.Collator("en", { numeric: true });
  const compare = (a, b) => {
    const x = Number(a), y = Number(b);
    return Number.isNaN(x) || Number.isNaN(y) ? collator.compare(a, b) : x - y;
  };
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value ?? "";
      const rows = [...body.rows].sort((a, b) => {
        const x = value(a), y = value(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        return up ? compare(x, y) : compare(y, x);
      });
      body.append(...rows);
      const name = head.querySelector("button").textContent.trim();
      document.getElementById("sorted").textContent = `Sorted by ${name}, ${up ? "ascending" : "descending"}`;
    });
  });
}
// On paper nothing can be opened.
window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
