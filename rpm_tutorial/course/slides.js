// One slide at a time, by keys and buttons; a second window for the speaker, which moves with the first.

const slides = [...document.querySelectorAll('main > section')];
const byId = id => document.getElementById(id);
const speaking = location.search === '?speaker';
let place = 0, told = false, other = speaking ? window.opener : null, since = Date.now();

const asked = () => (parseInt(location.hash.slice(1)) || 1) - 1;  // by the address
const show = (slide, answered, tell = true) => {
    place = Math.max(0, Math.min(slides.length - 1, slide));
    told = answered;
    slides.forEach((section, number) => {
        section.classList.toggle('now', number === place);
        section.classList.toggle('next', number === place + 1);
        section.classList.toggle('told', number === place && told);
        section.inert = number !== place;
    });
    byId('place').textContent = `${place + 1} / ${slides.length}`;
    byId('notes').innerHTML = slides[place].querySelector('.notes').innerHTML;
    byId('speaker').scrollTop = 0;
    history.replaceState(null, '', `#${place + 1}`);
    if (!speaking) slides[place].focus({ preventScroll: true });
    if (tell) other?.postMessage({ slide: place, told }, '*');
};

const on = () => !told && slides[place].querySelector('.answer') ? show(place, true)
    : place < slides.length - 1 && show(place + 1, false);
const back = () => told ? show(place, false) : place > 0 && show(place - 1, false);
const full = () => document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen();
const speak = () => {
    other = window.open(`${location.pathname}?speaker#${place + 1}`, 'speaker', 'width=1180,height=800');
};
const fit = () => {
    if (speaking) return;
    const scale = Math.min(innerWidth / 1280, innerHeight / 720);
    const [x, y] = [(innerWidth - 1280 * scale) / 2, (innerHeight - 720 * scale) / 2];
    document.querySelector('main').style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
};

// Words are as large as their slide has room for; a long equation or line of code is smaller by itself.
const enlarge = slide => {
    const body = slide.querySelector('.body'), lines = [...body.querySelectorAll('.equation, pre')];
    const within = part => part.scrollWidth <= part.clientWidth;
    for (let size = 36; size > 12; size--) {
        slide.style.fontSize = `${size}px`;
        for (const line of lines) {
            for (let own = 1.1; own > .4; own -= .05) {
                line.style.fontSize = `${own * (line.localName === 'pre' ? .68 : 1)}em`;
                if (within(line)) break;
            }
        }
        if (within(body) && body.scrollHeight <= body.clientHeight) return;
    }
};

// The caption of a figure with a slider is in its frames; it comes below, in larger type.
const caption = (box, layout, frames) => {
    const text = part => part?.title?.text?.replaceAll('<br>', ' ') ?? '';
    const texts = new Map(frames.map(frame => [frame.name, text(frame.layout)]));
    const line = document.createElement('p');
    line.className = 'caption';
    line.textContent = text(layout);
    box.after(line);
    [layout, ...frames.map(frame => frame.layout)].forEach(part => delete part?.title);
    layout.height -= box.dataset.titleHeight;
    layout.margin.t -= box.dataset.titleHeight;
    return ({ step }) => { line.textContent = texts.get(step.args[0][0]) ?? ''; };
};

// A figure is drawn as it is in the lesson, and then enlarged to the slide.
const draw = box => {
    const { data, layout, frames } = JSON.parse(box.querySelector('script').textContent);
    const slid = frames && layout.title && caption(box, layout, frames);
    const { width = 720, height = 450 } = layout;
    const scale = Math.min(box.clientWidth / width, box.clientHeight / height);
    const plot = box.appendChild(document.createElement('div'));
    plot.className = 'plot';
    plot.style.cssText = `width: ${width}px; height: ${height}px; transform: scale(${scale}) translateX(-50%)`;
    Object.assign(box.style, { height: `${height * scale}px`, flex: 'none' });
    Plotly.newPlot(plot, { data, layout: { ...layout, width, height }, frames, config: { displayModeBar: false } });
    if (slid) plot.on('plotly_sliderchange', slid);
};

const read = lines => byId('speaker').scrollBy(0, 30 * lines);  // the notes
const keys = {
    ArrowRight: on, ArrowDown: on, PageDown: on, ' ': on, Enter: on, ArrowLeft: back, ArrowUp: back, PageUp: back,
    Home: () => show(0, false), End: () => show(slides.length - 1, false), f: full, s: speak,
    ...speaking && { ArrowDown: () => read(2), ArrowUp: () => read(-2) },
};
addEventListener('keydown', event => {
    const act = keys[event.key] ?? keys[event.key.toLowerCase()];
    const pressed = event.target.closest('button') && ['Enter', ' '].includes(event.key);
    if (event.ctrlKey || event.metaKey || event.altKey || pressed || !act) return;
    event.preventDefault();
    act();
});
// The other window alone is heard: the one that opened this, or one that this has opened, even before it was loaded again.
addEventListener('message', ({ source, data }) => {
    if (!source || source === window || (speaking ? source !== window.opener : source.opener !== window)) return;
    other = source;
    if (data === 'hello') show(place, told);
    else if (Number.isInteger(data?.slide)) show(data.slide, data.told === true, false);
});
addEventListener('hashchange', () => show(asked(), false));
addEventListener('resize', fit);
for (const [id, act] of Object.entries({ on, back, full, speak, reset: () => { since = Date.now(); } })) {
    byId(id).addEventListener('click', act);
}
if (speaking) {
    document.documentElement.className = 'speaker';
    byId('speaker').hidden = false;
    setInterval(() => {
        const seconds = Math.floor((Date.now() - since) / 1000);
        byId('clock').textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, '0')}`;
    }, 1000);
}
fit();
document.querySelectorAll('section:not(.title, .figure)').forEach(enlarge);
document.querySelectorAll('.chart').forEach(draw);
show(asked(), false, !speaking);
other?.postMessage('hello', '*');
document.documentElement.dataset.drawn = 'true';
