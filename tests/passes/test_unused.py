import numpy as np
import onnx_ir as ir

from fcn_deploy.graph.edit import add_constant
from fcn_deploy.graph.model import parse
from fcn_deploy.passes.unused import remove_unused


def test_what_nothing_reads_is_removed_and_the_rest_stays(exported):
    model = parse(exported("fcn8s").read_bytes())
    count = len(list(model.graph))
    constant = add_constant(model.graph, "orphan", np.zeros(1000, np.float32))
    model.graph.append(ir.node("Abs", [constant], name="dead"))
    model, changed = remove_unused(model)
    assert changed
    assert len(list(model.graph)) == count
    assert "orphan" not in model.graph.initializers
    assert remove_unused(model)[1] is False
