// Not a module: it runs before anything is drawn, so that a dark page never flashes light.
{
  let chosen = "system";
  try {
    chosen = localStorage.getItem("theme") ?? "system";
  } catch {
    // A page that may not remember follows the system.
  }
  document.documentElement.dataset.theme = chosen;
}
