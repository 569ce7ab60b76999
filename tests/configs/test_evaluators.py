"""Every evaluator that the configs ship runs as the config composes it, over a few samples, in one process and in two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('mmdet')
pytest.importorskip('mmseg')
pytest.importorskip('mmpretrain')
from mmengine.config import Config

CONFIGS = Path(__file__).parents[2] / 'configs'
SCRIPT = """
import importlib
import json
import os
import sys
import torch
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope

import mmpool_ext

rank, world, store, cases = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], json.load(open(sys.argv[4]))
if world > 1:
    torch.distributed.init_process_group('gloo', init_method=f'file://{store}', rank=rank, world_size=world)


def segmented(index, classes):
    generator = torch.Generator().manual_seed(index)
    draw = lambda *shape, high=min(classes, 4): torch.randint(0, high, shape, generator=generator)
    label = draw(1, 6, 6).repeat_interleave(4, 1).repeat_interleave(4, 2)
    label[..., 0] = 255
    return dict(
        gt_sem_seg=dict(data=label), pred_sem_seg=dict(data=draw(1, 24, 24)), img_path=f'{index}.jpg',
        pyramid_sem_seg=dict(data=draw(4, 24, 24)), pyramid_level=dict(data=draw(1, 24, 24)),
    )


def classified(index, classes):
    generator = torch.Generator().manual_seed(index)
    return dict(pred_score=torch.rand(classes, generator=generator), gt_label=torch.tensor([index]))


def detected(index, classes):
    box = torch.tensor([[2.0, 3.0, 20.0, 21.0 + index]])
    return dict(img_id=index, ori_shape=(24, 24), pred_instances=dict(bboxes=box, scores=torch.tensor([0.9]), labels=torch.tensor([index % 2])))


for name, case in cases.items():
    init_default_scope(case['scope'])
    meta = dict(importlib.import_module(case['scope'] + '.registry').DATASETS.get(case['dataset']).METAINFO)
    meta['classes'] = case['classes'] or meta['classes']
    classes = len(meta['classes'])
    evaluator = Evaluator(case['evaluator'])
    evaluator.dataset_meta = meta
    if world > 1:
        torch.distributed.barrier()  # the main process makes the folder of the PNGs, long before the first is written
    make = dict(mmseg=segmented, mmpretrain=classified, mmdet=detected)[case['scope']]
    for index in range(4):
        if index % world == rank:
            evaluator.process([make(index, classes)], None)
    metrics = evaluator.evaluate(4)
    if rank == 0:
        print(json.dumps([name, {key: round(float(value), 6) for key, value in metrics.items()}]), flush=True)
if world > 1:
    os._exit(0)  # gloo's threads may outlive the interpreter, which aborts then
"""


def shipped(folder):
    """Evaluators by config, each once, with files to score against and to write to inside ``folder``."""
    classes = [dict(id=index + 1, name=f'c{index}') for index in range(80)]
    boxes = [dict(id=i + 1, image_id=i, category_id=i % 2 + 1, bbox=[2, 3, 18, 18 + i], area=18 * (18 + i), iscrowd=0) for i in range(4)]
    images = [dict(id=i, file_name=f'{i}.jpg', height=24, width=24) for i in range(4)]
    annotations = folder / 'annotations.json'
    annotations.write_text(json.dumps(dict(images=images, annotations=boxes, categories=classes)))
    paths = {path for path in CONFIGS.glob('*/*.py') if '_evaluator' in path.read_text()}
    paths |= {sorted(paper.glob('*.py'))[0] for paper in CONFIGS.iterdir() if paper.is_dir()}
    paths |= {next((CONFIGS / 'lip').glob('faster-rcnn_lip-r50_*')), *(CONFIGS / 'shapes').glob('*.py')}
    cases, seen = {}, set()
    for path in sorted(paths):
        cfg = Config.fromfile(path)
        for key in ('val', 'test'):
            evaluator = cfg.get(f'{key}_evaluator')
            loader = cfg.get(f'{key}_dataloader')
            text = json.dumps(Config(dict(e=evaluator)).to_dict(), sort_keys=True)
            if evaluator is None or (cfg.default_scope, text) in seen:
                continue
            seen.add((cfg.default_scope, text))
            settings = json.loads(text)['e']
            for one in settings if isinstance(settings, list) else [settings]:
                for name, where in (('ann_file', annotations), ('output_dir', folder / path.stem), ('outfile_prefix', folder / path.stem)):
                    if name in one:
                        one[name] = str(where)
            own = loader.dataset.get('metainfo', {}).get('classes')
            if cfg.default_scope == 'mmdet':
                own = [one['name'] for one in classes]
            cases[f'{path.stem}, {key}'] = dict(scope=cfg.default_scope, dataset=loader.dataset.type, classes=own, evaluator=settings)
    return cases


def evaluate(folder, world):
    """What the script prints in ``world`` processes."""
    folder.mkdir()
    cases = shipped(folder)
    (folder / 'cases.json').write_text(json.dumps(cases))
    options = dict(env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=os.pathsep.join(sys.path)), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    arguments = [str(world), str(folder / 'store'), str(folder / 'cases.json')]
    runs = [subprocess.Popen([sys.executable, '-c', SCRIPT, str(rank), *arguments], text=True, **options) for rank in range(world)]
    said = [run.communicate(timeout=300) for run in runs]
    assert [run.returncode for run in runs] == [0] * world, '\n'.join(errors[-3000:] for _, errors in said)
    found = dict(json.loads(line) for line in said[0][0].splitlines() if line.startswith('["'))
    assert found.keys() == cases.keys()
    return found


def test_every_shipped_evaluator_runs_as_composed(tmp_path):
    alone, together = evaluate(tmp_path / 'one', 1), evaluate(tmp_path / 'two', 2)
    assert alone == together
    levels = next(metrics for name, metrics in alone.items() if 'levels' in name and name.endswith('test'))
    assert {'mIoU', 'boundary_mIoU', 'pyramid/mIoU', 'pyramid/mIoU_level1', 'pyramid/share_level4'} <= levels.keys()
    scored = [metrics for metrics in alone.values() if metrics]
    assert len(scored) >= 6
    assert all(value == value or 'level' in key for metrics in scored for key, value in metrics.items())
