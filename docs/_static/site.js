// Whatever scrolls sideways can be scrolled by keyboard: it joins the order of Tab while it is wider than its room.

const wide = 'pre, .rpm-scroll, .table-wrapper, .output';
const watch = new ResizeObserver(entries => {
    for (const { target } of entries) {
        if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
        else target.removeAttribute('tabindex');
    }
});
document.querySelectorAll(wide).forEach(element => watch.observe(element));
