// Show items in a table that can be sorted by its columns and operated with the keyboard. A row stays the same element
// while its item is listed, so that focus and clicks are not lost when the contents change every second.

import { $, element, mark, write } from "./dom.js";

/**
 * A column is `{name, value(item, now) → text}`. Optional are `sort(item, now) → number or text`, `number` (aligned to
 * the right), `rowHeader`, `mark(item)` (a word for the style sheet), `full(item)` (the tooltip), `warn(item, now)`
 * (highlighted) and `ifAny` (the column is hidden while no item has a value). An action is `{name, key, run(item, element), hidden(item)}`. Enter and a click on the row call
 * `open(item, element)`.
 */
export class Table {
  #rows = new Map();
  #columns;
  #actions;
  #open;
  #heads;
  #body = element("tbody", { role: "rowgroup" });
  #focusFallback;
  #sorted = { column: 0, descending: true };
  #last = [[], 0];
  onSort = () => {};

  constructor(id, { columns, actions = [], open = null, descending = true }) {
    this.#columns = columns;
    this.#actions = actions;
    this.#open = open;
    this.#sorted.descending = descending;
    this.#focusFallback = $(`${id}-title`);
    const table = $(id);
    table.role = "table"; // explicit roles: the cards of a narrow page would lose the implicit ones
    this.#heads = columns.map((column, index) => this.#head(column, index));
    const actionHead = actions.length ? [element("th", { scope: "col", role: "columnheader", ariaLabel: "Actions" })] : [];
    table.append(element("thead", { role: "rowgroup" }, element("tr", { role: "row" }, ...this.#heads, ...actionHead)), this.#body);
    this.#body.onkeydown = (event) => this.#onKey(event);
    this.#showSorting();
  }

  get sorting() {
    return { ...this.#columns[this.#sorted.column], descending: this.#sorted.descending };
  }

  show(items, now) {
    this.#last = [items, now];
    const listed = new Set(items.map((item) => item.id));
    for (const [id, row] of this.#rows) if (!listed.has(id)) this.#remove(id, row);
    this.#inOrder(items, now).forEach((item, index) => {
      const row = this.#rows.get(item.id) ?? this.#newRow(item.id);
      row.item = item;
      this.#fill(row, item, now);
      const there = this.#body.children[index] ?? null;
      if (there !== row.element) this.#body.insertBefore(row.element, there);
    });
    this.#hideEmptyColumns();
    const focusable = this.#body.querySelector("tr[tabindex='0']");
    if (this.#open && !focusable && this.#body.firstChild) this.#body.firstChild.tabIndex = 0;
  }

  #hideEmptyColumns() {
    const rows = [...this.#rows.values()];
    this.#columns.forEach(({ ifAny }, index) => {
      if (!ifAny) return;
      const hidden = !rows.some((row) => row.cells[index].textContent);
      for (const cell of [this.#heads[index], ...rows.map((row) => row.cells[index])]) cell.hidden = hidden;
    });
  }

  focusFirst() {
    this.#focus(this.#body.querySelector("tr[tabindex='0']") ?? this.#body.firstChild);
  }

  #inOrder(items, now) {
    const { sort, value } = this.#columns[this.#sorted.column];
    const key = sort ?? value;
    const way = this.#sorted.descending ? -1 : 1;
    const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    const keyed = items.map((item) => [key(item, now), item]);
    return keyed.sort((a, b) => way * compare(a[0], b[0]) || a[1].id.localeCompare(b[1].id)).map(([, item]) => item);
  }

  #head({ name, number }, index) {
    const button = element("button", { type: "button", textContent: name, className: "sort" });
    button.onclick = () => {
      const again = this.#sorted.column === index;
      this.#sorted = { column: index, descending: again ? !this.#sorted.descending : Boolean(number) };
      this.#showSorting();
      this.show(...this.#last);
      this.onSort();
    };
    return element("th", { scope: "col", role: "columnheader", className: number ? "number" : "" }, button);
  }

  #showSorting() {
    this.#heads.forEach((head, index) => {
      const { column, descending } = this.#sorted;
      head.ariaSort = index === column ? (descending ? "descending" : "ascending") : null;
    });
  }

  #newRow(id) {
    const row = { buttons: [] };
    row.cells = this.#columns.map(({ name, number, rowHeader, mark: marks }) => {
      const cell = rowHeader ? element("th", { scope: "row", role: "rowheader" }) : element("td", { role: "cell" });
      if (number) cell.classList.add("number");
      if (marks) cell.classList.add("phase");
      cell.dataset.label = name;
      return cell;
    });
    row.element = element("tr", { role: "row" }, ...row.cells);
    if (this.#actions.length) {
      row.buttons = this.#actions.map(({ name, run }) =>
        element("button", { type: "button", textContent: name, ariaLabel: `${name} ${id}`, onclick: (event) => {
          event.stopPropagation();
          run(row.item, event.currentTarget);
        } }),
      );
      row.element.append(element("td", { role: "cell", className: "actions" }, ...row.buttons));
    }
    if (this.#open) {
      row.element.tabIndex = -1;
      row.element.onclick = () => getSelection().isCollapsed && this.#open(row.item, row.element);
      row.element.onfocus = () => this.#select(row.element);
    }
    this.#rows.set(id, row);
    return row;
  }

  #fill(row, item, now) {
    this.#columns.forEach(({ value, mark: marks, full, warn }, index) => {
      write(row.cells[index], value(item, now));
      if (marks) mark(row.cells[index], "mark", marks(item));
      if (full) row.cells[index].title = full(item) ?? "";
      if (warn) row.cells[index].classList.toggle("warn", warn(item, now));
    });
    this.#actions.forEach(({ hidden }, index) => {
      if (hidden) row.buttons[index].hidden = hidden(item);
    });
  }

  #remove(id, row) {
    if (row.element.contains(document.activeElement)) this.#focusFallback.focus();
    row.element.remove();
    this.#rows.delete(id);
  }

  #select(chosen) {
    for (const { element: each } of this.#rows.values()) each.tabIndex = each === chosen ? 0 : -1;
  }

  #focus(row) {
    if (!row) return;
    this.#select(row);
    row.focus();
    row.scrollIntoView({ block: "nearest" });
  }

  #onKey(event) {
    const current = event.target;
    if (current.tagName !== "TR" || event.ctrlKey || event.metaKey || event.altKey) return;
    const row = [...this.#rows.values()].find(({ element: each }) => each === current);
    const action = this.#actions.find(({ key, hidden }) => key === event.key && !hidden?.(row.item));
    if (event.key === "ArrowDown" || event.key === "j") this.#focus(current.nextElementSibling);
    else if (event.key === "ArrowUp" || event.key === "k") this.#focus(current.previousElementSibling);
    else if (event.key === "Enter") this.#open?.(row.item, current);
    else if (action) action.run(row.item, current);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
