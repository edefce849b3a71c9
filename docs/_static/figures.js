// Draws the figures of a page. A widget brings a figure for each setting of its controls, packed, and the one asked for is shown.

const unpacked = packed => {
    const bytes = Uint8Array.from(atob(packed), letter => letter.charCodeAt());
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).text();
};

// Of each part, settings have a value by its number, or none: 0.
const figureAt = ({ controls, parts }, setting) => {
    const place = setting.reduce((before, at, k) => before * controls[k].values.length + at, 0);
    const figure = { data: [], layout: {} };
    for (const [path, values, places] of parts) {
        if (!places[place]) continue;
        const inside = path.slice(0, -1).reduce((part, key) => part[key] ??= {}, figure), value = values[places[place] - 1];
        inside[path.at(-1)] = path[0] === 'layout' ? structuredClone(value) : value;  // plotly writes into a layout
    }
    return figure;
};

const draw = async box => {
    const plot = box.querySelector('.rpm-plot'), script = box.querySelector('script');
    const controls = [...box.querySelectorAll('.rpm-control :is(input, select)')];
    const config = { responsive: true, displayModeBar: false };
    const show = ({ data, layout: { width, ...layout } }) => {
        layout.height = Number(plot.dataset.height ?? layout.height);  // a page may ask for its own
        plot.style.height = `${layout.height}px`;
        return Plotly.react(plot, data, layout, config);
    };
    if (!controls.length) return show(JSON.parse(script.textContent));
    const grid = JSON.parse(await unpacked(script.textContent));
    const update = () => {
        const setting = controls.map(control => control.selectedIndex ?? control.valueAsNumber);
        const figure = figureAt(grid, setting);
        controls.forEach((control, k) => {
            const value = grid.controls[k].values[setting[k]], shown = control.parentElement.querySelector('output');
            if (shown) control.setAttribute('aria-valuetext', shown.textContent = value);
        });
        plot.setAttribute('aria-label', figure.alt);
        box.querySelector('.rpm-caption').textContent = figure.caption;
        return show(figure);
    };
    controls.forEach(control => control.addEventListener('input', update));
    return update();  // what a browser has kept of an earlier visit counts
};

(async () => {
    const script = document.createElement('script');
    script.textContent = await unpacked(window.packedPlotly);
    document.head.append(script);
    for (const box of document.querySelectorAll('.rpm-figure')) {
        await draw(box);
        await new Promise(requestAnimationFrame);  // the page stays usable meanwhile
    }
    document.documentElement.dataset.drawn = 'true';
})();
