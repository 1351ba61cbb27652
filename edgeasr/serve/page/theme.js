// Loaded before the page is drawn, so that a chosen theme does not flash; main.js changes it.
"use strict";
try {
  const chosen = localStorage.getItem("edgeasr.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is forbidden here: the system's theme it is.
}
