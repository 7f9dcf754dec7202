// Light, dark or the system's choice; remembered in this browser.

const THEME = "vireid-theme";

export const chosenTheme = () => localStorage.getItem(THEME) ?? "system";

export function chooseTheme(theme) {
  localStorage.setItem(THEME, theme);
  document.documentElement.dataset.theme = theme;
}

chooseTheme(chosenTheme());
