"use strict";
(() => {
  const EVERY = 1000, SHOWN = 60, WINDOW = 10, LONGEST = 100000;
  const NAMES = {ok: "ok", client_error: "client error", server_error: "server error", rejected: "rejected", timeout: "timeout"};
  const STATES = {READY: ["Ready", "good"], LOADING: ["Loading", ""], UNLOADING: ["Unloading", ""], UNAVAILABLE: ["Not loaded", "bad"]};
  const snapshots = [];
  const lines = new Map();
  let models = null;
  // An address with a password in it is fine for the page, but not for what it fetches.
  const address = (path) => location.origin + path;
  const byId = (id) => document.getElementById(id);

  const number = (value) => value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
  const rate = (value) => value === 0 ? "0" : value >= 10 ? value.toFixed(0) : value.toFixed(1);
  const seconds = (value) => value >= 1 ? `${number(value)} s` : value >= 0.001 ? `${number(value * 1e3)} ms` : `${(value * 1e6).toFixed(0)} µs`;
  const bytes = (value) => value >= 2 ** 30 ? `${number(value / 2 ** 30)} GiB` : `${(value / 2 ** 20).toFixed(0)} MiB`;
  const duration = (value) => {
    const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
    const first = parts.findIndex(([size]) => value >= size);
    if (first < 0) return "0 s";
    let rest = value;
    return parts.slice(first, first + 2).map(([size, unit]) => {
      const count = Math.floor(rest / size);
      rest -= count * size;
      return `${count} ${unit}`;
    }).join(" ");
  };
  const sum = (values) => values.reduce((a, b) => a + b, 0);

  // Quantiles of what two states of a histogram differ by, evenly spread within a bucket (each is 10 % wide).
  const quantiles = (before, after, wanted) => {
    const old = new Map(before);
    const buckets = after.map(([bound, count]) => [bound === "+Inf" ? Infinity : Number(bound), count - (old.get(bound) || 0)]);
    const total = sum(buckets.map((bucket) => bucket[1]));
    if (total <= 0) return null;
    return wanted.map((share) => {
      let seen = 0;
      for (const [bound, count] of buckets) {
        if (count > 0 && seen + count >= share * total) {
          const low = bound / 1.1;
          return bound === Infinity ? 10 : low + (bound - low) * (share * total - seen) / count;
        }
        seen += count;
      }
      return null;
    });
  };

  const draw = (tile, name, values) => {
    const paths = tile.querySelectorAll("path");
    const series = values.map((value, index) => {
      const key = `${name}/${index}`;
      const kept = [...(lines.get(key) || []), value].slice(-SHOWN);
      lines.set(key, kept);
      return kept;
    });
    const top = Math.max(...series.flat().filter((value) => value !== null), 1e-9) * 1.1;
    series.forEach((kept, index) => {
      const points = kept.map((value, at) => value === null ? null : [(SHOWN - kept.length + at) * 120 / (SHOWN - 1), 31 - 30 * value / top]);
      const there = points.filter((point) => point !== null).map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`);
      const line = there.length ? `M${there.join("L")}` : "";
      paths[index + 1].setAttribute("d", line);
      if (index === 0) {
        const known = points.filter((point) => point !== null);
        paths[0].setAttribute("d", line && `${line}L${known.at(-1)[0].toFixed(1)},32L${known[0][0].toFixed(1)},32Z`);
      }
    });
  };

  const show = (section, kind, text, detail, values) => {
    const tile = section.querySelector(`[data-tile=${kind}]`);
    tile.querySelector("[data-number]").textContent = text;
    tile.querySelector("[data-detail]").textContent = detail;
    draw(tile, `${section.dataset.model}/${kind}`, values);
  };

  const mean = (before, after) => after[1] > before[1] ? (after[0] - before[0]) / (after[1] - before[1]) : null;

  const showModel = (section, now, last, first, elapsed) => {
    const [text, tone] = STATES[now.state];
    const badge = section.querySelector("[data-state]");
    badge.textContent = text;
    badge.className = `badge ${tone}`;
    section.querySelector("[data-reason]").textContent = now.reason;
    if (!last) return;
    const rates = Object.keys(NAMES).map((name) => [name, (now.requests[name] - last.requests[name]) / elapsed]);
    const failed = sum(rates.slice(1).map((item) => item[1]));
    const parts = rates.filter((item) => item[1] > 0).map(([name, value]) => `${NAMES[name]} ${rate(value)}`);
    show(section, "rate", `${rate(sum(rates.map((item) => item[1])))}/s`, parts.join(", ") || "no requests", [sum(rates.map((item) => item[1])), failed]);
    const found = quantiles(first.durations, now.durations, [0.5, 0.99]);
    show(section, "latency", found ? seconds(found[0]) : "–", found ? `median; p99 ${seconds(found[1])}` : "no requests in 10 s", found || [null, null]);
    const wait = mean(first.queue, now.queue);
    show(section, "queue", wait === null ? "–" : seconds(wait), `mean wait; ${now.in_flight} in flight`, [wait]);
    const rows = mean(first.batches, now.batches);
    show(section, "batch", rows === null ? "–" : number(rows), rows === null ? "no runs in 10 s" : "rows a run", [rows]);
  };

  const notice = (text, link) => {
    const place = byId("notice");
    place.hidden = !text;
    if (place.dataset.text === text) return;
    place.dataset.text = text;
    place.textContent = text;
    if (link) {
      const again = document.createElement("a");
      again.href = "/";
      again.textContent = "Show them";
      place.append(" ", again);
    }
  };

  const showState = (now) => {
    byId("ready").textContent = now.ready ? "Ready" : `Not ready: ${now.why_not_ready}`;
    byId("ready").className = `badge ${now.ready ? "good" : "bad"}`;
    byId("uptime").textContent = duration(now.uptime_seconds);
    byId("memory").textContent = bytes(now.memory_bytes);
    byId("in-flight").textContent = now.in_flight;
    const shape = JSON.stringify(now.models.map((model) => [model.name, model.loads]));
    models = models || shape;
    notice(models === shape ? "" : "Models have been loaded or unloaded since this page was made.", true);
    const last = snapshots.at(-1), first = snapshots[0];
    const find = (snapshot, name) => snapshot && snapshot.state.models.find((model) => model.name === name);
    const at = performance.now() / 1000;
    for (const model of now.models) {
      const section = [...document.querySelectorAll(".model")].find((item) => item.dataset.model === model.name);
      if (section) showModel(section, model, find(last, model.name), find(first, model.name), last ? at - last.at : 1);
    }
    snapshots.push({at, state: now});
    if (snapshots.length > WINDOW) snapshots.shift();
  };

  const poll = async () => {
    try {
      if (!document.hidden) {
        const response = await fetch(address("/state"), {signal: AbortSignal.timeout(5000)});
        if (!response.ok) throw new Error(`status ${response.status}`);
        showState(await response.json());
      }
    } catch (error) {
      notice("The server does not answer; the numbers are old. Trying again.", false);
      byId("ready").textContent = "Unknown";
      byId("ready").className = "badge";
    }
    setTimeout(poll, EVERY);
  };

  for (const form of document.querySelectorAll("form")) {
    const [button, took, pre] = ["button", "[data-took]", "[data-answer]"].map((name) => form.querySelector(name));
    form.addEventListener("submit", async (submitted) => {
      submitted.preventDefault();
      button.disabled = true;
      took.textContent = "Running…";
      const begun = performance.now();
      let text, good = false;
      try {
        const path = form.dataset.path.split("/").map(encodeURIComponent).join("/");
        const headers = {"Content-Type": "application/json"};
        const response = await fetch(address(path), {method: "POST", headers, body: form.querySelector("textarea").value});
        text = await response.text();
        good = response.ok;
        if (!good) text = JSON.parse(text).error;
        took.textContent = `${good ? "Answered" : `Refused (${response.status})`} in ${seconds((performance.now() - begun) / 1000)}`;
      } catch (error) {
        text = "The server does not answer.";
        took.textContent = "Failed";
      }
      pre.textContent = text.length > LONGEST ? `${text.slice(0, LONGEST)}\n… and ${text.length - LONGEST} characters more` : text;
      pre.className = good ? "" : "bad";
      pre.hidden = false;
      button.disabled = false;
    });
  }
  poll();
})();
