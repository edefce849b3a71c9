// Draws the figures of a lesson, and moves those that have frames by a plain range input.

const unpack = async packed => {
    const bytes = Uint8Array.from(atob(packed), letter => letter.charCodeAt());
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
    const script = document.createElement('script');
    script.textContent = await new Response(stream).text();
    document.head.append(script);
};

const draw = async box => {
    const { captions, ...figure } = JSON.parse(box.querySelector('script').textContent);
    const plot = box.querySelector('.rpm-plot'), slider = box.querySelector('input');
    await Plotly.newPlot(plot, { ...figure, config: { responsive: true, displayModeBar: false } });
    if (!slider) return;
    const values = JSON.parse(slider.dataset.values);
    const still = { mode: 'immediate', frame: { duration: 0, redraw: true }, transition: { duration: 0 } };
    slider.addEventListener('input', () => {
        const shown = slider.valueAsNumber;
        slider.setAttribute('aria-valuetext', box.querySelector('output').textContent = values[shown]);
        plot.setAttribute('aria-label', box.querySelector('.rpm-caption').textContent = captions[shown]);
        Plotly.animate(plot, [figure.frames[shown].name], still);
    });
};

(async () => {
    await unpack(window.packedPlotly);
    for (const box of document.querySelectorAll('.rpm-figure')) {
        await draw(box);
        await new Promise(requestAnimationFrame);  // the page stays usable meanwhile
    }
    document.documentElement.dataset.drawn = 'true';
})();
