'use strict';
// Each answer of the service says which picture comes next; a key that is held down counts once.
const $ = s => document.querySelector(s);
const [form, picture, text, sure, error, end, status, progress, undo] = ['#label', '#picture', '#text', '#sure', '#error', '#end', '#status', '#progress', '#undo'].map($);
let shown = null, busy = false, timer = 0;

function tell(s) {
  progress.max = Math.max(1, s.total);
  progress.value = s.labelled;
  status.textContent = [`${s.labelled} of ${s.total} labelled`, s.skipped && `${s.skipped} skipped`, s.note].filter(Boolean).join(' · ');
  clearTimeout(timer);
  if (s.busy) timer = setTimeout(async () => { try { tell(await ask('/state')); } catch { } }, 2000);
}

function show(s) {
  shown = s.image;
  form.hidden = shown === null;
  end.hidden = shown !== null;
  error.textContent = '';
  tell(s);
  if (shown === null) return undo.focus();
  picture.src = `/picture/${shown}`;
  picture.alt = `The picture ${s.name}`;
  text.value = s.guess;
  sure.textContent = !s.guess ? (s.note ? 'No guess yet.' : '') : s.confidence === null ? 'What you have entered.' : `A guess, ${Math.min(99, Math.round(100 * s.confidence))} % sure.`;
  text.focus();
  text.select();
}

async function ask(path, fields) {
  const answer = await fetch(path, fields && {method: 'POST', body: new URLSearchParams(fields)});
  const s = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(s.error || `The service has answered ${answer.status}.`);
  return s;
}

async function send(path, fields) {
  if (busy) return;
  busy = true;
  try { show(await ask(path, fields)); }
  catch (e) { error.textContent = e instanceof TypeError ? 'captcha-label can\'t be reached; is it still running?' : e.message; }
  busy = false;
}

const skip = () => shown !== null && send('/skip', {image: shown}), back = () => send('/undo', {});
form.addEventListener('submit', e => { e.preventDefault(); send('/label', {image: shown, text: text.value}); });
$('#skip').addEventListener('click', skip);
undo.addEventListener('click', back);
addEventListener('keydown', e => {
  if (e.ctrlKey || e.altKey || e.metaKey || e.shiftKey || e.isComposing) return;
  const act = {ArrowDown: skip, ArrowUp: back}[e.key];
  if (act) e.preventDefault();
  else if (e.key !== 'Enter' || !e.repeat) return;
  if (e.repeat) e.preventDefault();
  else act();
});
send('/state');
