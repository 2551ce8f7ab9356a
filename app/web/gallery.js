// A click, or a key on the picture in focus, marks a latent at once; the server is told and keeps it.
const NEXT = {'': 'yes', yes: 'no', no: ''};
const KEYS = {p: 'yes', n: 'no', u: ''};
const TOLD = {yes: 'has it', no: 'has it not', '': 'not marked'};
const recent = new Map(); // marks the server may not have known when it drew the list anew

const show = (cell, mark) => {
  cell.dataset.mark = mark;
  cell.setAttribute('aria-label', `seed ${cell.dataset.seed}, ${TOLD[mark]}`);
};
const say = (cell, mark) => {
  if (cell.parentElement.dataset.concept) { // else the server says what is missing
    show(cell, mark);
    recent.set(cell.dataset.seed, {mark, at: Date.now()});
  }
  trigger('select', {seed: Number(cell.dataset.seed), mark});
};
element.addEventListener('click', (event) => {
  const cell = event.target.closest('[data-seed]');
  if (cell) say(cell, NEXT[cell.dataset.mark]);
});
element.addEventListener('keydown', (event) => {
  const cell = event.target.closest('[data-seed]');
  if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key.toLowerCase() in KEYS) say(cell, KEYS[event.key.toLowerCase()]);
  const cells = [...element.querySelectorAll('[data-seed]')];
  const wide = cells.filter((other) => other.offsetTop === cells[0].offsetTop).length;
  const step = {ArrowRight: 1, ArrowLeft: -1, ArrowDown: wide, ArrowUp: -wide}[event.key];
  const other = step && cells[cells.indexOf(cell) + step];
  if (other) {
    event.preventDefault();
    other.focus();
  }
});
watch('value', () => {
  for (const [seed, {mark, at}] of recent) {
    const cell = element.querySelector(`[data-seed="${seed}"]`);
    if (cell && Date.now() - at < 2000) show(cell, mark);
  }
});
