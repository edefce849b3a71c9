// Draws the figures of a lesson, and moves those that have frames by a plain range input.

const unpack = async packed => {
    const bytes = Uint8Array.from(atob(packed), letter => letter.charCodeAt());
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
    const script = document.createElement('script');
    script.textContent = await new Response(stream).text();
    document.head.append(script);
};

const draw = async box => {
    const { data, layout, frames, captions } = JSON.parse(box.querySelector('script').textContent);
    const plot = box.querySelector('.rpm-plot'), slider = box.querySelector('input');
    const config = { responsive: true, displayModeBar: false };
    await Plotly.newPlot(plot, data, layout, config);
    if (!slider) return;
    const values = JSON.parse(slider.dataset.values);
    slider.addEventListener('input', () => {
        const shown = slider.valueAsNumber, frame = frames[shown];
        slider.setAttribute('aria-valuetext', box.querySelector('output').textContent = values[shown]);
        plot.setAttribute('aria-label', box.querySelector('.rpm-caption').textContent = captions[shown]);
        Plotly.react(plot, frame.data, { ...layout, ...frame.layout }, config);
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
