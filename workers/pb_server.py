"""What stands behind `triton_python_backend_utils` in this process: set once, before the model is imported."""

from collections.abc import Callable

from broker.messages import Answer, Message
from workers.calls import Calls
from workers.pb_errors import TritonModelException


class Server:
    """The worker, as the functions and classes that models use see it."""

    def __init__(self) -> None:
        """Not connected."""
        self.log: Callable[[str, str], None] = lambda level, text: None
        self.instance = ""
        self.version_directory = ""
        self.is_serving = False  # between initialize and finalize
        self._calls: Calls | None = None

    def connect(self, log: Callable[[str, str], None], instance: str, version_directory: str, calls: Calls) -> None:
        """Say where lines go, who the model is, where it lies, and how the server is asked."""
        self.log = log
        self.instance = instance
        self.version_directory = version_directory
        self._calls = calls

    @property
    def calls(self) -> Calls:
        """For calling other models. Raises TritonModelException outside of `execute`."""
        if self._calls is None or not self.is_serving:
            raise TritonModelException("BLS is only supported during the 'execute' function.")
        return self._calls

    def ask(self, question: Callable[[int], Message]) -> Answer:
        """Ask the server something under the number that `question` is given, and wait for the answer."""
        if self._calls is None:
            raise TritonModelException("the server cannot be asked before the model is loaded")
        return self._calls.ask(question)

    def tell(self, message: Message) -> None:
        """Tell the server something that it does not answer. Takes no lock."""
        if self._calls is not None:
            self._calls.tell(message)


server = Server()
