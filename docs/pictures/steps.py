#!/usr/bin/env python3
"""Draws docs/pictures/steps.svg: from srun to the task. Usage: docs/pictures/steps.py"""
import pathlib
from xml.sax.saxutils import escape

WIDTH, LEFT, BOX, ROW, GAP = 960, 20, 250, 62, 30
INK, FAINT, LINE = "#1f2328", "#59636e", "#8c959f"
HOSTS = {"submit host": "#ddf4ff", "controller": "#f6f8fa", "compute node": "#fff8e1"}

# Host, program, user that it runs as, what Coracle does there; and what goes to the next one.
STEPS = [
    ("submit host", "srun, sbatch, salloc + plugin", "the user",
     ["The plugin checks the options and refuses what is wrong before the job queues.",
      "It writes the request into the job's environment."],
     "job with its environment"),
    ("controller", "slurmctld", "SlurmUser",
     ["Allocates the nodes. No code of Coracle runs here."],
     "launch request with the environment (of a step: from srun itself)"),
    ("compute node", "slurmd", "root",
     ["Starts one slurmstepd for the step. In slurmd the plugin only reads its own arguments."],
     "fork and exec"),
    ("compute node", "slurmstepd + plugin", "root",
     ["init_post_opt: the plugin starts the launcher, once per step and node.",
      "slurmstepd sets up the step while the launcher works."],
     "request, user id and groups of the step record (socket)"),
    ("compute node", "launcher (coracle prepare)", "root; child process as the user",
     ["The child process opens the image. Root checks it against coracle.yaml",
      "and mounts it read-only. The launcher ends when all tasks have their answers."],
     "descriptor of the mount namespace"),
    ("compute node", "mount namespace", "one per step and node",
     ["Image, home, working directory, binds, a /dev with the step's GPUs, PMIx directory.",
      "task_init_privileged: each task enters it (setns), with no_new_privs and no capabilities."],
     "task_init: environment of the image; execve(2)"),
    ("compute node", "task", "the user",
     ["Your program. The kernel frees mounts and loop device with the last task.",
      "Of a refused step each node prints one line, and its tasks end with exit status 125."],
     None),
]


def text(x, y, words, size=13, colour=INK, extra=""):
    return f'<text x="{x}" y="{y}" font-size="{size}" fill="{colour}"{extra}>{escape(words)}</text>'


def draw():
    height = 40 + len(STEPS) * (ROW + GAP) - GAP
    parts = [
        (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
         'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" role="img" aria-label="From srun to the task">'),
        ('<defs><marker id="arrow" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto">'
         f'<path d="M0,0 L8,4 L0,8 z" fill="{LINE}"/></marker></defs>'),
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    host_before, top = None, 30
    for host, program, user, lines, passes in STEPS:
        if host != host_before:
            parts.append(text(LEFT, top - 8, host, 12, FAINT, ' font-style="italic"'))
        host_before = host
        parts.append(f'<rect x="{LEFT}" y="{top}" width="{BOX}" height="{ROW}" rx="6" fill="{HOSTS[host]}" '
                     f'stroke="{LINE}"/>')
        parts.append(text(LEFT + 14, top + 27, program, 14, INK, ' font-weight="bold"'))
        parts.append(text(LEFT + 14, top + 47, user, 12, FAINT))
        first = top + ROW // 2 + 5 - 10 * (len(lines) - 1)
        for number, line in enumerate(lines):
            parts.append(text(LEFT + BOX + 30, first + 20 * number, line))
        if passes:
            x = LEFT + 130
            parts.append(f'<line x1="{x}" y1="{top + ROW}" x2="{x}" y2="{top + ROW + GAP - 2}" stroke="{LINE}" '
                         'stroke-width="1.5" marker-end="url(#arrow)"/>')
            parts.append(text(x + 12, top + ROW + 19, passes, 12, FAINT))
        top += ROW + GAP
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    pathlib.Path(__file__).with_name("steps.svg").write_text(draw())
