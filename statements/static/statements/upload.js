// Upload each file by a request of its own, with progress; then have them matched.
"use strict";
const form = document.querySelector("form.drop");
const chooser = form.querySelector("input[type=file]");
const results = document.getElementById("results");
const matched = document.getElementById("matched");
const waiting = [];
let busy = false;

function send(fields, onprogress) {
    return new Promise((resolve, reject) => {
        const request = new XMLHttpRequest();
        const data = new FormData();
        for (const [name, value] of Object.entries(fields)) data.append(name, value);
        request.open("POST", form.action || location.href);
        request.setRequestHeader("X-CSRFToken", form.elements.csrfmiddlewaretoken.value);
        if (onprogress) request.upload.addEventListener("progress", onprogress);
        request.addEventListener("load", () =>
            request.status === 200 ? resolve(request.responseText) : reject(new Error(request.status)));
        for (const end of ["error", "abort", "timeout"]) request.addEventListener(end, () => reject(new Error(end)));
        request.send(data);
    });
}

function card(id) {
    return document.getElementById(id).content.firstElementChild.cloneNode(true);
}

function add(file) {
    const item = document.createElement("li");
    results.append(item);
    waiting.push({ file, item });
    show(item, file);
    work();
}

function show(item, file) {
    const sending = card("uploading");
    sending.querySelector("strong").textContent = file.name;
    item.replaceChildren(sending);
    return sending;
}

function offerAgain(item, file) {
    for (const again of item.querySelectorAll("button.again")) {
        again.hidden = false;
        again.addEventListener("click", () => { item.remove(); add(file); });
    }
}

async function upload({ file, item }) {
    const sending = show(item, file);
    const [status, bar] = [sending.querySelector(".status"), sending.querySelector("progress")];
    const fail = (text) => { status.textContent = text; bar.remove(); sending.classList.add("critical"); };
    if (file.size > Number(form.dataset.bytesMax)) return fail(status.dataset.tooLarge);
    status.textContent = status.dataset.sending;
    bar.value = 0;
    try {
        const verdict = await send({ part: "file", file }, (event) => {
            bar.value = 100 * event.loaded / event.total;
            if (event.loaded < event.total) return;
            status.textContent = status.dataset.reading;
            bar.removeAttribute("value");
        });
        item.innerHTML = verdict;
    } catch {
        fail(status.dataset.failed);
    }
    offerAgain(item, file);
}

async function work() {
    if (busy) return;
    busy = true;
    form.setAttribute("aria-busy", "true");
    while (waiting.length) await upload(waiting.shift());
    const matching = card("matching");
    matched.replaceChildren(matching);
    try {
        matched.innerHTML = await send({ part: "match" });
    } catch {
        matching.querySelector("progress").remove();
        matching.querySelector(".status").textContent = matching.querySelector(".status").dataset.failed;
    }
    busy = false;
    form.removeAttribute("aria-busy");
    if (waiting.length) work();
}

form.querySelector("[type=submit]").hidden = true;
chooser.addEventListener("change", () => { [...chooser.files].forEach(add); chooser.value = ""; });
form.addEventListener("submit", (event) => event.preventDefault());
for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => {
        if (!event.dataTransfer.types.includes("Files")) return;
        event.preventDefault();
        form.classList.add("over");
    });
}
document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) form.classList.remove("over"); });
document.addEventListener("drop", (event) => {
    event.preventDefault();
    form.classList.remove("over");
    [...event.dataTransfer.files].forEach(add);
});
