// A text of tinted tokens says the figure of the one that the pointer is on, or that arrow keys choose.
(() => {
  const text = document.querySelector(".tokens"), said = document.querySelector(".tokens + output");
  const tokens = [...text.children];
  let chosen = 0;
  function choose(i) {
    tokens[chosen].classList.remove("chosen");
    chosen = Math.max(0, Math.min(tokens.length - 1, i));
    tokens[chosen].classList.add("chosen");
    said.textContent = `Token ${chosen} \u201c${tokens[chosen].textContent}\u201d: ${tokens[chosen].title}`;
  }
  text.addEventListener("mouseover", (event) => {
    if (event.target !== text) choose(tokens.indexOf(event.target));
  });
  text.addEventListener("focus", () => choose(chosen));
  text.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    choose(chosen + step);
  });
})();
