import subprocess
import sys

SLOW = ("scipy.stats", "sklearn", "pandas", "pyarrow", "matplotlib", "optuna", "ray", "jinja2")


MODULES = (
    "unlearnkit.studies.table.build_table, unlearnkit.studies.table.study_text,"
    " unlearnkit.studies.planning.plan, unlearnkit.auditing.audit, unlearnkit.auto.chooser,"
    " unlearnkit.describe"
)


def test_what_a_command_starts_with_loads_nothing_slow_beside_torch():
    code = f"import sys, unlearnkit.catalog as c, {MODULES}; c.methods(), c.metrics(), c.cases()\n"
    code += f"sys.exit(', '.join(m for m in {SLOW!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert not done.stderr.strip()
