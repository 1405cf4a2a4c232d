// Scores an answer beside its accepted answers (config.references). config.how: "equal" (case and space aside),
// "token_f1" (words that both have), or "json" (equal values).
const seen = (text) => String(text).normalize('NFKC').toLowerCase().split(/\s+/).filter(Boolean);

const equal = (answer, reference) => Number(seen(answer).join(' ') === seen(reference).join(' '));

const words = (text) => String(text).normalize('NFKC').toLowerCase().match(/[\p{L}\p{N}\p{M}_]+/gu) || [];

function tokenF1(answer, reference) {
  const [own, wanted] = [words(answer), words(reference)];
  if (!own.length || !wanted.length) return Number(own.length === wanted.length);
  const left = new Map();
  for (const word of wanted) left.set(word, (left.get(word) || 0) + 1);
  let common = 0;
  for (const word of own) {
    if (left.get(word) > 0) {
      left.set(word, left.get(word) - 1);
      common += 1;
    }
  }
  return (2 * common) / (own.length + wanted.length);
}

function ordered(value) {
  if (Array.isArray(value)) return value.map(ordered);
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(Object.keys(value).sort().map((key) => [key, ordered(value[key])]));
}

function json(answer, reference) {
  try {
    return Number(JSON.stringify(ordered(JSON.parse(answer))) === JSON.stringify(ordered(JSON.parse(reference))));
  } catch {
    return 0;
  }
}

module.exports = (output, context) => {
  const { references, how } = context.config;
  const score = Math.max(...references.map((reference) => ({ equal, token_f1: tokenF1, json })[how](output, reference)));
  return { pass: how === 'token_f1' ? score >= 0.5 : score === 1, score, reason: `accepted: ${references.join(' | ')}` };
};
