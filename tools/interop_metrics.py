"""Text metrics and statistics: those of src/isolate on new random data, against the packages that define them.

Called by interop.py. The comparison is that of the golden files, in isolate_tests, which lies beside the program.
"""

import os
import re
import subprocess
from pathlib import Path

from make_metrics_golden import make

SEED = 9  # that of the golden files is another


def check_metrics(checks, program: Path, work: Path):
    """Every comparison with golden figures, on figures that are made now; `checks` is interop.py's."""
    make(work / "metrics", SEED, pairs=600, words=5000)
    command = [str(program.parent / "isolate_tests"), "--gtest_filter=*Golden.*"]
    environment = {**os.environ, "LAPIDARY_METRICS_GOLDEN": str(work / "metrics")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    results = re.findall(r"\[ +(OK|FAILED) +\] (\w+\.\w+) \(", done.stdout)
    for result, name in results:
        checks.report(name, result == "OK", "sacrebleu, rouge-score, scipy, statsmodels, scikit-learn")
    checks.report("isolate_tests", done.returncode == 0 and bool(results), f"{len(results)} comparisons")
