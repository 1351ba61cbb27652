// The small things around it: token, theme, files, the screen that stays on.

const TOKEN = "edgeasr.token";
const THEME = "edgeasr.theme";
const THEMES = ["system", "light", "dark"];

/** "browser" or "device". */
export function chosenSource() {
  return document.querySelector('[name="source"]:checked').value;
}

/** Kept until the tab is closed, and never part of an address. */
export function knownToken() {
  return sessionStorage.getItem(TOKEN);
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN);
}

/** Ask for it; wrong: whether one was tried. returns: whether there is one now */
export function askForToken(wrong) {
  const [dialog, input] = [document.getElementById("ask-token"), document.getElementById("token")];
  const why = "It is in the file, or the setting, that the server was started with.";
  document.getElementById("ask-why").textContent = wrong ? "That was not the token. Try again." : why;
  input.value = "";
  dialog.returnValue = "";
  document.getElementById("ask-cancel").onclick = () => dialog.close();
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      const given = dialog.returnValue === "ok" && input.value !== "";
      if (given) sessionStorage.setItem(TOKEN, input.value);
      input.value = "";
      resolve(given);
    };
  });
}

/** A button that goes round the system's theme, light and dark. */
export function themeButton(button) {
  const show = (theme) => {
    const name = `Theme: ${theme === "system" ? "as the system" : theme}`;
    button.setAttribute("aria-label", name);
    button.title = name;
  };
  show(document.documentElement.dataset.theme ?? "system");
  button.addEventListener("click", () => {
    const root = document.documentElement;
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? "system") + 1) % THEMES.length];
    if (next === "system") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem(THEME, next);
    } catch {
      // Storage is forbidden here: it holds until the page is left.
    }
    show(next);
  });
}

/** Offer text as a file. */
export function saveAs(text, format) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  link.download = `transcript-${new Date().toISOString().slice(0, 16).replace(/[T:]/g, "-")}.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

/** Ask that a phone's screen stays on; returns what ends it. */
export function keepAwake() {
  let lock = null;
  let wanted = true;
  const ask = async () => {
    if (!wanted || document.visibilityState !== "visible") return;
    try {
      lock = await navigator.wakeLock?.request("screen");
    } catch {
      lock = null; // a low battery, or a setting: the screen goes off as always
    }
  };
  document.addEventListener("visibilitychange", ask);
  ask();
  return () => {
    wanted = false;
    document.removeEventListener("visibilitychange", ask);
    lock?.release();
  };
}
