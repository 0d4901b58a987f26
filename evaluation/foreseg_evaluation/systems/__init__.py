# SPDX-License-Identifier: Apache-2.0
"""What can be evaluated: a reasoner and a tracker by name, as a YAML file says."""
