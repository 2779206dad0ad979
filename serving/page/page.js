"use strict";
// The page of serving/web.py. Every text is set through textContent; nothing is loaded from elsewhere.

const TEXTS = {
  en: {
    skip: "Skip to content", title: "Face bank", token: "Token of this server", open: "Open",
    compareTitle: "Are these the same person?", firstPhoto: "First photo", secondPhoto: "Second photo",
    identifyTitle: "Who is this?", photo: "Photo", name: "Name", cosine: "Cosine", distance: "Squared L2",
    margin: "Margin", peopleTitle: "People", photos: "Photos", enrol: "Enrol", erase: "Erase", cancel: "Cancel",
    confirm: "Add even if a photo resembles someone else", nobody: "Nobody is enrolled yet.",
    privacy: "Photos are processed in memory on this computer and are not kept. Embeddings are biometric data.",
    state: (people, samples) => `${people} people, ${samples} samples`,
    noDetector: "no detector: give aligned crops",
    same: "Same person", different: "Different people", unknown: "Unknown",
    score: (cosine, distance) => `cosine ${cosine}, squared L2 ${distance}`,
    limit: (cosine) => `threshold ${cosine}`, far: (far) => `FAR ${far}`, fpir: (fpir) => `FPIR of this bank ${fpir}`,
    nearest: (name) => `most similar: ${name}`, empty: "the bank is empty",
    genuine: "same person", impostor: "different people", this: "these photos",
    caption: (name) => `Cosines of the pairs of ${name} under this model, as shares of each kind.`,
    working: "Working…", offline: "The server does not answer.", samples: (count) => `${count} samples`,
    askErase: (name) => `Erase ${name} from every file of the bank? This cannot be undone.`,
    enrolled: (name, count) => `${name}: ${count} new samples.`, erased: (name) => `${name} is erased.`,
  },
  zh: {
    skip: "跳到正文", title: "人脸库", token: "服务器令牌", open: "打开",
    compareTitle: "是同一个人吗？", firstPhoto: "第一张照片", secondPhoto: "第二张照片",
    identifyTitle: "这是谁？", photo: "照片", name: "姓名", cosine: "余弦", distance: "L2 平方", margin: "领先",
    peopleTitle: "人员", photos: "照片", enrol: "注册", erase: "删除", cancel: "取消",
    confirm: "即使照片与他人相似也添加", nobody: "还没有注册任何人。",
    privacy: "照片只在本机内存中处理，不会保存。特征向量属于生物识别数据。",
    state: (people, samples) => `${people} 人，${samples} 个样本`,
    noDetector: "没有检测器：请提供对齐的裁剪图",
    same: "同一个人", different: "不同的人", unknown: "未知",
    score: (cosine, distance) => `余弦 ${cosine}，L2 平方 ${distance}`,
    limit: (cosine) => `阈值 ${cosine}`, far: (far) => `误识率 ${far}`, fpir: (fpir) => `本库误报率 ${fpir}`,
    nearest: (name) => `最相似：${name}`, empty: "人脸库为空",
    genuine: "同一个人", impostor: "不同的人", this: "这两张照片",
    caption: (name) => `${name} 中各对在此模型下的余弦分布（各类占比）。`,
    working: "处理中…", offline: "服务器没有响应。", samples: (count) => `${count} 个样本`,
    askErase: (name) => `从人脸库的所有文件中删除 ${name}？此操作无法撤销。`,
    enrolled: (name, count) => `${name}：新增 ${count} 个样本。`, erased: (name) => `已删除 ${name}。`,
  },
};
const CHINESE_ERRORS = {
  empty: "文件为空。", damaged: "照片已损坏或不完整。", not_a_photo: "文件不是 JPEG 或 PNG 照片。",
  animated: "动画不能使用，请提供单张照片。", cmyk: "这是 CMYK 格式的 JPEG，请存为 RGB。",
  too_large: "文件太大。", too_many_pixels: "像素太多，请缩小照片。", no_face: "没有检测到人脸。",
  several_faces: "照片里有多张人脸，请裁剪到一个人。", face_too_small: "人脸太小。", blurred: "人脸模糊，请提供更清晰的照片。",
  bad_landmarks: "人脸关键点不可用。", no_detector: "没有检测器：请提供对齐的裁剪图。", bad_name: "姓名不可用：不能含斜杠、换行或控制字符。",
  similar_person: "照片与库中另一人相似。若确为不同的人，请勾选确认。", different_person: "照片与已注册的同名者不像。请换一个姓名，或勾选确认。",
  no_person: "没有这个人。", busy: "服务器繁忙，请重试。", bank: "人脸库暂时不可用。", bad_token: "令牌缺失或错误。",
};
const SVG = "http://www.w3.org/2000/svg";
const files = {};
let language = navigator.language.startsWith("zh") ? "zh" : "en";
let token = null;
let calibration = null;
let lastScore = null;

const element = (id) => document.getElementById(id);
const text = (key, ...values) => (values.length ? TEXTS[language][key](...values) : TEXTS[language][key]);
const fixed = (value) => value.toFixed(3);
const share = (value) => (value === 0 ? "0" : Number(value.toPrecision(2)).toString());

async function call(method, path, body) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  if (body instanceof Blob) headers["Content-Type"] = "application/octet-stream";
  let response;
  try {
    response = await fetch(path, { method, headers, body });
  } catch {
    throw new Error(text("offline"));
  }
  const answer = await response.json();
  if (response.status === 401) element("login").hidden = false;
  if (!response.ok) throw new Error(explain(answer.error));
  return answer;
}

function explain(error) {
  const known = language === "zh" && CHINESE_ERRORS[error.code];
  return known || error.message;
}

function show(id, message, kind = "") {
  element(id).textContent = message;
  element(id).className = `answer ${kind}`;
}

function guarded(id, work) {
  return async (...values) => {
    show(id, text("working"));
    try {
      await work(...values);
    } catch (error) {
      show(id, error.message, "bad");
    }
  };
}

function translate() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = text(node.dataset.text);
  document.title = text("title");
  element("language").textContent = language === "zh" ? "English" : "中文";
  element("language").lang = language === "zh" ? "en" : "zh";
  draw(lastScore);
  refresh();
}

async function refresh() {
  try {
    const [health, people] = await Promise.all([call("GET", "/v1/health"), call("GET", "/v1/persons")]);
    const parts = [text("state", health.people, health.samples)];
    parts.push(text("limit", fixed(health.threshold.cosine)));
    if (health.threshold.far !== null) parts.push(text("far", share(health.threshold.far)));
    if (health.threshold.fpir !== null) parts.push(text("fpir", share(health.threshold.fpir)));
    if (!health.detector) parts.push(text("noDetector"));
    element("state").textContent = parts.join(" · ");
    if (!calibration) {
      calibration = await call("GET", "/v1/calibration");
      draw(lastScore);
    }
    listPeople(people.persons);
    element("login").hidden = true;
  } catch (error) {
    element("state").textContent = error.message;
  }
}

function listPeople(persons) {
  element("nobody").hidden = persons.length > 0;
  element("people").replaceChildren(...persons.map((person) => {
    const row = document.createElement("li");
    const label = document.createElement("span");
    const name = document.createElement("bdi");
    const count = document.createElement("small");
    name.textContent = person.name;
    count.textContent = ` ${text("samples", person.samples)}`;
    label.append(name, count);
    const button = document.createElement("button");
    button.type = "button";
    button.className = "danger";
    button.textContent = text("erase");
    button.setAttribute("aria-label", `${text("erase")} ${person.name}`);
    button.addEventListener("click", () => askErase(person));
    row.append(label, button);
    return row;
  }));
}

function askErase(person) {
  const dialog = element("ask");
  element("ask-text").textContent = text("askErase", person.name);
  dialog.returnValue = "no";
  dialog.onclose = guarded("enrol-answer", async () => {
    if (dialog.returnValue !== "yes") return show("enrol-answer", "");
    await call("DELETE", `/v1/persons/${person.id}`);
    show("enrol-answer", text("erased", person.name), "good");
    await refresh();
    element("name").focus();
  });
  dialog.showModal();
}

const compare = guarded("compare-answer", async () => {
  if (!files.first || !files.second) return show("compare-answer", "");
  const form = new FormData();
  form.append("first", files.first);
  form.append("second", files.second);
  lastScore = null;
  draw(null);
  const answer = await call("POST", "/v1/verify", form);
  lastScore = answer.cosine;
  const numbers = [text("score", fixed(answer.cosine), fixed(answer.squared_l2))];
  numbers.push(text("limit", fixed(answer.threshold.cosine)));
  const verdict = answer.same ? "same" : "different";
  show("compare-answer", `${text(verdict)} (${numbers.join("; ")})`, answer.same ? "good" : "bad");
  draw(lastScore);
});

const identify = guarded("identify-answer", async () => {
  element("candidates").hidden = true;
  if (!files.probe) return show("identify-answer", "");
  const answer = await call("POST", "/v1/identify?top=5", files.probe);
  const best = answer.candidates[0];
  let message = answer.known ? answer.name : text("unknown");
  if (!best) message += ` (${text("empty")})`;
  else if (!answer.known) message += ` (${text("nearest", best.name)}, ${text("score", fixed(best.cosine), fixed(best.squared_l2))})`;
  else message += ` (${text("score", fixed(best.cosine), fixed(best.squared_l2))})`;
  show("identify-answer", message, answer.known ? "good" : "");
  const rows = answer.candidates.map((candidate, place) => {
    const next = answer.candidates[place + 1];
    const row = document.createElement("tr");
    const margin = next ? fixed(candidate.cosine - next.cosine) : "–";
    for (const value of [candidate.name, fixed(candidate.cosine), fixed(candidate.squared_l2), margin]) {
      const cell = document.createElement("td");
      const content = document.createElement("bdi");
      content.textContent = value;
      cell.append(content);
      row.append(cell);
    }
    if (answer.known && place === 0) row.className = "accepted";
    return row;
  });
  element("candidates").tBodies[0].replaceChildren(...rows);
  element("candidates").hidden = rows.length === 0;
});

const enrol = guarded("enrol-answer", async () => {
  const form = new FormData();
  form.append("name", element("name").value);
  for (const photo of element("photos").files) form.append("photo", photo);
  const query = element("confirm").checked ? "?confirm=1" : "";
  const answer = await call("POST", `/v1/persons${query}`, form);
  show("enrol-answer", text("enrolled", answer.person.name, answer.added), "good");
  element("enrol").reset();
  await refresh();
});

function svg(name, attributes, content) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (content !== undefined) node.textContent = content;
  return node;
}

function draw(score) {
  const histogram = calibration && calibration.histogram;
  element("chart").hidden = !histogram;
  if (!histogram) return;
  const wide = Math.max(240, element("chart").clientWidth), high = 220, foot = 190, edges = histogram.edges;
  const x = (cosine) => ((cosine + 1) / 2) * wide;
  const most = Math.max(...histogram.genuine, ...histogram.impostor);
  const picture = svg("svg", { width: wide, height: high, role: "img", "aria-labelledby": "caption" });
  for (const kind of ["impostor", "genuine"]) {
    histogram[kind].forEach((value, bin) => {
      if (!value) return;
      const height = (value / most) * (foot - 40);
      const left = x(edges[bin]);
      picture.append(svg("rect", { class: kind, x: left, y: foot - height, width: x(edges[bin + 1]) - left - 0.5, height }));
    });
  }
  picture.append(svg("line", { class: "axis", x1: 0, x2: wide, y1: foot, y2: foot }));
  for (const mark of [-1, -0.5, 0, 0.5, 1]) {
    const anchor = mark === -1 ? "start" : mark === 1 ? "end" : "middle";
    picture.append(svg("text", { x: x(mark), y: foot + 18, "text-anchor": anchor }, mark.toString()));
  }
  const limit = calibration.threshold.cosine;
  picture.append(svg("line", { class: "limit", x1: x(limit), x2: x(limit), y1: 22, y2: foot }));
  picture.append(svg("text", { x: x(limit), y: 14, "text-anchor": limit > 0.6 ? "end" : "middle" }, text("limit", fixed(limit))));
  if (score !== null) {
    picture.append(svg("line", { class: "score", x1: x(score), x2: x(score), y1: 40, y2: foot }));
    const anchor = score > 0.6 ? "end" : score < -0.6 ? "start" : "middle";
    picture.append(svg("text", { class: "score-text", x: x(score), y: 34, "text-anchor": anchor }, `${text("this")} ${fixed(score)}`));
  }
  [["impostor", 8], ["genuine", 8]].forEach(([kind, left], row) => {
    picture.append(svg("rect", { class: kind, x: left, y: 6 + 20 * row, width: 12, height: 12 }));
    picture.append(svg("text", { x: left + 18, y: 17 + 20 * row }, text(kind)));
  });
  element("plot").replaceChildren(picture);
  element("caption").textContent = text("caption", calibration.name);
}

function take(slot, file, work) {
  files[slot] = file;
  const picture = document.querySelector(`[data-slot=${slot}] img`);
  if (picture.src) URL.revokeObjectURL(picture.src);
  picture.hidden = !file;
  if (file) picture.src = URL.createObjectURL(file);
  work();
}

for (const [slot, work] of [["first", compare], ["second", compare], ["probe", identify]]) {
  const zone = document.querySelector(`[data-slot=${slot}]`);
  const input = element(slot);
  input.addEventListener("change", () => take(slot, input.files[0], work));
  zone.addEventListener("dragover", (event) => { event.preventDefault(); zone.classList.add("over"); });
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    if (event.dataTransfer.files.length) take(slot, event.dataTransfer.files[0], work);
  });
}
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => event.preventDefault());
element("enrol").addEventListener("submit", (event) => { event.preventDefault(); enrol(); });
element("login").addEventListener("submit", (event) => {
  event.preventDefault();
  token = element("token").value;
  refresh();
});
element("language").addEventListener("click", () => { language = language === "zh" ? "en" : "zh"; translate(); });
window.addEventListener("resize", () => draw(lastScore));
translate();
