"""Training and evaluation of networks. Never imports ``server``.

A folder or root module imports only what is listed above it here (``tests/test_import_rules.py`` checks this):

1. ``config_base``, ``environment``, ``files``, ``distributed``, ``run_log``, ``optimisation``
2. ``data``: datasets, image reading, cache, sampler, augmentation, the ``Translator`` interface
3. ``translation``: implementations of ``Translator``; ``losses``
4. ``methods``: the loss terms and image streams of each method
5. ``config``: the whole configuration of a run
6. ``checkpoint``: files of a run
7. ``evaluation``: protocols, metrics, model loader, evaluator, figures
8. ``trainer``: the training loop, which validates by ``evaluation``
9. ``export``: ONNX files and model cards
10. ``experiments``: studies and their report
"""

from models.cores import limit_native_threads

limit_native_threads()
