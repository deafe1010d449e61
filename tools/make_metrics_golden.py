#!/usr/bin/env python3
"""Makes tests/golden/metrics/: text metrics and statistics of random data by the packages that define them.

overlap.json     pairs of texts with their BLEU and chrF by sacrebleu and ROUGE by rouge-score, the corpus scores of
                 stretches of them, and words with NLTK's stems
statistics.json  paired differences with scipy's tests and bootstrap intervals; power by statsmodels, Holm's correction
                 and Wilson's intervals by statsmodels, sign tests by scipy, agreement of clusterings by scikit-learn
"""

import argparse
import math
import random
import warnings
from pathlib import Path

import numpy as np
from golden_common import record_versions, write_json
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import BLEU, CHRF
from scipy import special, stats
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower
from statsmodels.stats.proportion import proportion_confint

PACKAGES = ("sacrebleu", "rouge-score", "nltk", "scipy", "statsmodels", "scikit-learn", "numpy")
WORDS = """the a of to and in is was for with that cache latency queries database replication revenue market pricing
customers churn analysis responsible organizational conditionally relational happily running flies dying skies agreed
plastered motoring conflated sized hopping falling failing filing hopefulness formality sensibilities electrical
adjustment adoption replacement controlling rolled probate ceased geology theologies generalization oscillators
café naïve Zürich Ångström résumé façade 東京 数据 привет Δελτα 😀 e\u0301tude K\u212bmega \u212aelvin \u0130stanbul
don't it's well-known state-of-the-art O'Brien U.S. p95 Q3 v14.2 3.14 1,200 10,000.50 -5 2-5 99% $5M (p99) [sic] "quoted"
'single' &amp; &lt;b&gt; &quot;x&quot; a/b c++ e-mail: yes; no! why? ... … – — <skipped> semi;colon under_score""".split()
SPECIAL = (
    ("", "a reference without any answer"), ("an answer without any reference", ""), ("", ""), ("   \n\t ", "x"),
    ("same text, same figures.", "same text, same figures."), ("word", "word"), ("word", "another"), ("I", "I am"),
    ("two words", "two words"), (". , ; -", ". , ; -"), ("line one\nline two", "line one line two"),
    ("hyphen-\nated", "hyphenated"), ("1-2 3-four", "1 - 2 3 - four"), ("1,000.5,x .5", "1,000.5 , x . 5"),
    ("no\u00a0break space\u2003em", "no break space em"), ("trailing \u3000", "trailing"), ("naïve", "naive"),
    ("\u212a9 \u0130x", "k9 i x"), ("\x1fsplit\x1chere\x85now", "split here now"), ("😀😀😀😀😀😀", "😀😀😀"),
    ("abc", "abcdefgh"), ("abcdefgh", "abc"), ("&amp;lt; &amp;amp;", "< &"), ("a.b.c,d", "a . b . c , d"),
    ("the the the the the", "the cat the"), ("café cafe\u0301", "café café"),
    ("used a bus", "use a bu"),
)  # fmt: skip


def sentence(rng, length):
    words = [rng.choice(WORDS) for _ in range(length)]
    words = [w + rng.choice(("", "", "", "", ",", ".", "!", ":")) for w in words]
    return "".join(w + rng.choice((" ",) * 12 + ("\n", "  ", "-", "\u00a0")) for w in words).rstrip(" ")


def altered(rng, text):
    """The text with some words dropped, repeated, replaced, capitalised or moved."""
    words, rate = text.split(" "), rng.choice((0.05, 0.2, 0.5, 0.9))
    out = []
    for word in words:
        change = rng.choice(("drop", "repeat", "replace", "case")) if rng.random() < rate else None
        if change == "replace":
            word = rng.choice(WORDS)
        elif change == "case":
            word = word.title()
        out += [] if change == "drop" else [word] * (2 if change == "repeat" else 1)
    if rng.random() < 0.2:
        rng.shuffle(out)
    return " ".join(out)


def overlap(hypothesis, reference):
    """Every figure of one pair."""
    bleu = BLEU(effective_order=True).sentence_score(hypothesis, [reference])
    figures = {
        "hypothesis": hypothesis,
        "reference": reference,
        "bleu": bleu.score,
        "precisions": bleu.precisions,
        "brevity_penalty": bleu.bp,
        "tokens": [bleu.sys_len, bleu.ref_len],
        "chrf": CHRF().sentence_score(hypothesis, [reference]).score,
    }
    for name, stem in (("rouge", False), ("rouge_stemmed", True)):
        scores = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem).score(reference, hypothesis)
        figures[name] = [[s.precision, s.recall, s.fmeasure] for s in scores.values()]
    return figures


def words_to_stem(rng, count):
    """Word-like strings that end in what the stemmer's rules look for."""
    ends = """s es ies ied eed ed ing ational tional enci anci izer bli alli entli eli ousli ization ation ator alism
    iveness fulness ousness aliti iviti biliti fulli logi icate ative alize iciti ical ful ness al ance ence er ic able
    ible ant ement ment ent ion sion tion ou ism ate iti ous ive ize e y ly ll bled sses ss yed ying""".split()
    words = "sky skies dying lying tying news inning innings outing outings canning cannings howe proceed exceed".split()
    words += "succeed dies tied feed agreed flies spied hop hopping filing used aping ok okay yyyy syzygy 1990s b2bs oed".split()
    while len(words) < count:
        stem = "".join(rng.choice("bcdfglmnprstvwxyz" if rng.random() < 0.6 else "aeiouy") for _ in range(rng.randint(0, 6)))
        words.append(stem + "".join(rng.choice(ends) for _ in range(rng.randint(0, 2))))
    return sorted({w for w in words if len(w) > 2})


def make_overlap(seed, pairs, words):
    rng = random.Random(seed)
    texts = list(SPECIAL)
    while len(texts) < pairs:
        reference = sentence(rng, rng.choice((1, 2, 3, 5, 8, 13, 21)))
        texts.append((altered(rng, reference) if rng.random() < 0.9 else sentence(rng, 6), reference))
    corpora = []
    for first, count in ((0, pairs), (0, 10), (3, 1), (8, 1), (10, 1), (len(SPECIAL), 20), (pairs // 2, pairs // 4)):
        hypotheses, references = zip(*texts[first : first + count], strict=True)
        bleu, chrf = BLEU().corpus_score(hypotheses, [references]), CHRF().corpus_score(hypotheses, [references])
        corpora.append({"first": first, "count": count, "bleu": bleu.score, "chrf": chrf.score})
    stemmer = PorterStemmer()
    return {
        "pairs": [overlap(*pair) for pair in texts],
        "corpora": corpora,
        "stems": [[word, stemmer.stem(word)] for word in words_to_stem(rng, words)],
    }


def jackknife_acceleration(d):
    left_out = (d.sum() - d) / (len(d) - 1)
    u = left_out.mean() - left_out
    return float((u**3).sum() / (6 * (u**2).sum() ** 1.5))


def bootstrap(d, seed):
    """scipy's intervals, with the means of the resamples that it drew."""
    interval = {}
    for method in ("percentile", "BCa"):
        result = stats.bootstrap((d,), np.mean, n_resamples=150, method=method, rng=np.random.default_rng(seed))
        interval[method] = list(result.confidence_interval)
    means = np.sort(result.bootstrap_distribution)
    share = ((means < d.mean()).mean() + (means <= d.mean()).mean()) / 2
    return {
        "means": means.tolist(),
        "percentile": interval["percentile"],
        "bca": interval["BCa"],
        "bias": float(special.ndtri(share)),
        "acceleration": jackknife_acceleration(d),
    }


def sample(d, seed, with_bootstrap):
    n, nonzero = len(d), np.abs(d[d != 0])
    wilcoxon = stats.wilcoxon(d)
    t = stats.ttest_1samp(d, 0)
    dz, ranks = d.mean() / d.std(ddof=1), len(nonzero) * (len(nonzero) + 1) / 2
    df = n - 1
    figures = {
        "differences": d.tolist(),
        "wilcoxon": [float(wilcoxon.statistic), float(wilcoxon.pvalue)],
        "t": [float(t.statistic), float(t.pvalue)],
        "dz": float(dz),
        "gz": float(dz * math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)),
        "rank_biserial": float(2 * stats.wilcoxon(d, alternative="greater").statistic / ranks - 1),
    }
    if n <= 16:
        test = stats.permutation_test(
            (d,), lambda x, axis: np.mean(x, axis=axis), permutation_type="samples", n_resamples=2**n
        )
        figures["sign_flip"] = float(test.pvalue)
    if with_bootstrap:
        figures["bootstrap"] = bootstrap(d, seed)
    return figures


def random_differences(rng, i):
    """Of several kinds by turns: normal, skewed, with ties (multiples of 1/8) and with zeros; 5 to 60 of them."""
    n = int((5, 8, 12, 13, 14, 16, 17, 30, 50, 51, 60)[i % 11])
    d = rng.normal(rng.choice((0, 0.2, 0.6)), 1, n) if i % 3 else rng.exponential(1, n) - 0.7
    if i % 4 == 1:
        d = np.round(d * 8) / 8
    if i % 4 == 3:
        d[rng.choice(n, max(1, n // 5), replace=False)] = 0
    return d


def clusterings(rng):
    cases = [([0, 0, 0], [5, 5, 5]), ([0, 1, 2], [7, 7, 7]), ([0, 0, 1, 1], [1, 1, 0, 0]), ([0, 0, 1, 1], [0, 1, 0, 1])]
    for _ in range(8):
        n = int(rng.integers(5, 40))
        a, b = rng.integers(0, 4, n), rng.integers(0, 5, n)
        kept = rng.random(n) < rng.choice((0.0, 0.5, 0.9))
        cases.append((a.tolist(), np.where(kept, a, b).tolist()))
    return [
        {"a": a, "b": b, "ari": adjusted_rand_score(a, b), "nmi": normalized_mutual_info_score(a, b)} for a, b in cases
    ]


def powers(rng):
    out = []
    for dz in (0.1, -0.2, 0.35, 0.5, 0.8, 1.3, 2.5, *rng.uniform(0.05, 2, 4)):
        needed = math.ceil(TTestPower().solve_power(abs(dz), alpha=0.05, power=0.8))
        # solve_power() gives a number with a fraction: the fewest whole pairs that have the power
        needed = next(n for n in (needed - 1, needed, needed + 1) if n > 1 and TTestPower().power(dz, n, 0.05) >= 0.8)
        n = int(rng.integers(2, 2 * needed))  # with a power near 1, statsmodels' is NaN
        power = float(TTestPower().power(dz, n, 0.05))
        if not math.isnan(power):
            out.append({"dz": dz, "n": n, "power": power, "needed": needed})
    return out


def shares():
    """Sign tests and Wilson's intervals of wins and losses; a tie is half a win to the interval."""
    counts = ((8, 2, 0), (0, 10, 0), (5, 5, 3), (61, 39, 1), (1, 0, 0), (0, 1, 4), (3, 0, 0), (600, 500, 7))
    return [
        {
            "wins": wins,
            "losses": losses,
            "mean": (wins + ties / 2) / (wins + losses + ties),
            "n": wins + losses + ties,
            "p": float(stats.binomtest(wins, wins + losses).pvalue),
            "wilson": [
                float(end)
                for end in proportion_confint(wins + ties / 2, wins + losses + ties, alpha=0.05, method="wilson")
            ],
        }
        for wins, losses, ties in counts
    ]


def make_statistics(seed, samples):
    rng = np.random.default_rng(seed)
    families = [rng.uniform(0, 0.1, n).round(3) for n in (1, 2, 5, 12)]
    return {
        "samples": [sample(random_differences(rng, i), i, i % 5 == 0) for i in range(samples)],
        "holm": [{"p": p.tolist(), "adjusted": multipletests(p, method="holm")[1].tolist()} for p in families],
        "power": powers(rng),
        "clusterings": clusterings(rng),
        "shares": shares(),
    }


def make(folder, seed, pairs=200, samples=44, words=500):
    """Writes both files; scipy remarks on ties and on resamples that are few on purpose."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_json(folder / "overlap.json", make_overlap(seed, pairs, words), indent=None)
        write_json(folder / "statistics.json", make_statistics(seed, samples), indent=None)


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path, default=root / "tests/golden")
    golden = parser.parse_args().golden
    make(golden / "metrics", seed=8)
    record_versions(golden, Path(__file__), PACKAGES)


if __name__ == "__main__":
    main()
