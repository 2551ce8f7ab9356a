// The list is drawn anew whenever something happens, so its root listens for all of its buttons.
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-do]');
  if (button) trigger('select', {what: button.dataset.do, task: button.dataset.task});
});
