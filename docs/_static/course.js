// What a screen reader and a keyboard need, and the theme leaves out.

// A box that scrolls sideways has to take the focus, or the arrow keys never reach it. Which boxes do depends on the window,
// on what is folded, and on equations that are typeset late: each of these changes the size of the page.
function reachWideBoxes() {
  for (const box of document.querySelectorAll("pre, .table-wrapper, div.math")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}
new ResizeObserver(reachWideBoxes).observe(document.body);

// Two sidebars on one page need names.
for (const [side, name] of [[".sidebar-drawer", "all pages"], [".toc-drawer", "this page"]]) {
  document.querySelector(side)?.setAttribute("aria-label", name);
}
