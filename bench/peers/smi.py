"""Log of a GPU's clock, power, throttle reasons and temperature: one nvidia-smi that writes a line every 100 ms."""
import datetime
import pathlib
import statistics
import subprocess

FIELDS = ["timestamp", "clocks.sm", "power.draw.instant", "clocks_event_reasons.active", "temperature.gpu"]
MILLISECONDS = 100
# Bits of clocks_event_reasons.active, and what lowers the clock.
REASONS = {0x4: "power", 0x8: "hardware", 0x20: "heat", 0x40: "heat (hardware)", 0x80: "power brake"}


class Log:
    """A log in a file. If it `starts`, lines are added until `stop`."""

    def __init__(self, file, starts=False):
        self.file, self.child = pathlib.Path(file), None
        if starts:
            self.start()

    def start(self):
        query = [f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits", "--id=0", f"--loop-ms={MILLISECONDS}"]
        # Without stdbuf, nvidia-smi may write its lines in blocks of several seconds.
        with self.file.open("a") as out:
            try:
                self.child = subprocess.Popen(["stdbuf", "-oL", "nvidia-smi", *query], stdout=out, stderr=subprocess.DEVNULL)
            except OSError:
                pass

    def stop(self):
        if self.child:
            self.child.kill()
            self.child.wait()

    def during(self, *spans):
        """Returns means of clock and power, the reasons for a lower clock and the highest temperature in some spans of time (pairs of
        seconds since 1970). Returns an empty dict without a line of these times."""
        lines = filter(None, map(parsed, self.file.read_text().splitlines() if self.file.exists() else []))
        lines = [line for line in lines if any(began <= line[0] <= ended for began, ended in spans)]
        if not lines:
            return {}
        _, clocks, watts, reasons, degrees = zip(*lines)
        names = [name for bit, name in REASONS.items() if any(reason & bit for reason in reasons)]
        return {"mhz": round(statistics.mean(clocks)), "watts": round(statistics.mean(watts)), "celsius": max(degrees), "throttled_by": names}


def parsed(line):
    """Parses a line of the log. Returns None for a message, an incomplete line or a value that the GPU does not have."""
    try:
        time, clock, watts, reasons, degrees = line.split(", ")
        time = datetime.datetime.strptime(time, "%Y/%m/%d %H:%M:%S.%f").timestamp()
        return time, int(clock), float(watts), int(reasons, 16), int(degrees)
    except ValueError:
        return None
