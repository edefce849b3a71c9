// Whatever scrolls sideways can be scrolled by keyboard: it joins the order of Tab while it is wider than its room.

const wide = 'pre, .rpm-scroll, .table-wrapper, .output, p:has(math)';
const watch = new ResizeObserver(entries => {
    for (const { target } of entries) {
        if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
        else target.removeAttribute('tabindex');
    }
});
document.querySelectorAll(wide).forEach(element => watch.observe(element));

// What has been read is ticked in the list of lessons. It is kept in this browser alone, by the names of the pages.

const read = new Set(JSON.parse(localStorage.getItem('rpm-read') ?? '[]'));
const name = path => path.split('/').slice(-1)[0].replace('.html', '');
const tick = () => document.querySelectorAll('.sidebar-tree a, .card strong a').forEach(link => {
    const done = read.has(name(link.pathname));
    if (done && !link.querySelector('.read')) link.insertAdjacentHTML('beforeend', '<span class="read" aria-label="read"> ✓</span>');
});
if (location.pathname.includes('/notebooks/')) {
    new IntersectionObserver((entries, observer) => {
        if (!entries.some(entry => entry.isIntersecting)) return;
        read.add(name(location.pathname));
        localStorage.setItem('rpm-read', JSON.stringify([...read]));
        observer.disconnect();
        tick();
    }).observe(document.querySelector('footer'));
}
tick();
