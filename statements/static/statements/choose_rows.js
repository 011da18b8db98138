"use strict";
// The box in the table's head chooses all rows of the page; without scripts it stays hidden.
for (const all of document.querySelectorAll("input.choose-all")) {
    const boxes = all.closest("table").querySelectorAll('tbody input[name="row"]');
    all.hidden = false;
    all.addEventListener("change", () => boxes.forEach((box) => { box.checked = all.checked; }));
}
