"""Forms of rows, the first of which is sound; each of the others has the fault its docstring names."""

from lmflow_core.api import Text


class Sound:
    """Reads the field that is called as it is."""

    def _name(self):
        return type(self).__name__.lower()

    def recognises(self, row):
        return self._name() in row

    def read(self, row):
        return Text(self._said(row))

    def _said(self, row):
        value = row.get(self._name())
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"the field {self._name()!r} must be text")
        return value


class CrashesOnOthers(Sound):
    """Looks for its field in rows without it."""

    def recognises(self, row):
        return isinstance(row[self._name()], str)


class CrashesWhenMissing(Sound):
    """Does not check that its field is there."""

    def read(self, row):
        return Text(row[self._name()])


class ClaimsTexts(Sound):
    """Has the field of another form."""

    def _name(self):
        return "text"


class ClaimsMessages(Sound):
    """Recognises rows with messages, too."""

    def recognises(self, row):
        return "messages" in row or super().recognises(row)


class ChangesRows(Sound):
    """Takes its field out of the row."""

    def _said(self, row):
        said = super()._said(row)
        row["seen"] = True
        return said


class WritesNumbers(Sound):
    """Makes texts of numbers and objects."""

    def _said(self, row):
        return super()._said({self._name(): str(row.get(self._name()) or "")})


class Empty(Sound):
    """Makes an empty example of a row without its field."""

    def _said(self, row):
        value = row.get(self._name())
        return value if isinstance(value, str) else ""


class Vague(Sound):
    """Does not say which field is wrong."""

    def _said(self, row):
        try:
            return super()._said(row)
        except ValueError:
            raise ValueError("bad row") from None


class AsciiOnly(Sound):
    """Leaves out what is not ASCII."""

    def _said(self, row):
        return super()._said(row).encode("ascii", "ignore").decode()


class Exact(Sound):
    """Recognises only rows without further fields."""

    def recognises(self, row):
        return row.keys() == {self._name()}


class GivesRows(Sound):
    """Gives the row in the place of an example."""

    def read(self, row):
        return dict(row)


class Counts(Sound):
    """Gives another example each time."""

    _count = 0

    def _said(self, row):
        self._count += 1
        return f"{self._count} {super()._said(row)}"
