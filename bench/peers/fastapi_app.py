"""Three operations of this API on FastAPI with SQLModel and asyncpg, as their documentation has it. No log, no CORS."""

import os
import sys
from base64 import urlsafe_b64encode
from datetime import datetime
from json import dumps
from typing import List, Optional
from urllib.parse import quote

import asyncpg  # noqa: F401
import jwt
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import validator
from sqlalchemy import TIMESTAMP, BigInteger, Column, Identity, func, text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import sessionmaker
from sqlmodel import Field, SQLModel, select

if "--check" in sys.argv:
    sys.exit()

engine = create_async_engine(os.environ["DATABASE_URL"].replace("postgres://", "postgresql+asyncpg://"), pool_size=10, max_overflow=0)
sessions = sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)
app = FastAPI()


def instant():
    return Column(TIMESTAMP(timezone=True), nullable=False, server_default=text("now()"))


class NewTask(SQLModel):
    title: str = Field(max_length=200)
    description: Optional[str] = Field(default=None, max_length=1000)
    completed: bool = False

    @validator("title")
    def not_empty(cls, title):
        if not title.strip():
            raise ValueError("the title is empty")
        return title.strip()


class TaskRead(SQLModel):
    id: int
    user_id: str
    title: str
    description: Optional[str]
    completed: bool
    created_at: datetime
    updated_at: datetime


class Task(NewTask, table=True):
    __tablename__ = "tasks"
    id: Optional[int] = Field(default=None, sa_column=Column(BigInteger, Identity(always=True), primary_key=True))
    user_id: str = Field(index=True)
    created_at: Optional[datetime] = Field(default=None, sa_column=instant())
    updated_at: Optional[datetime] = Field(default=None, sa_column=instant())


def owner(user_id: str, credentials: HTTPAuthorizationCredentials = Depends(HTTPBearer(auto_error=False))) -> str:
    try:
        claims = jwt.decode(credentials.credentials, os.environ["BETTER_AUTH_SECRET"], algorithms=["HS256"])
    except (AttributeError, jwt.InvalidTokenError):
        raise HTTPException(401)
    if claims.get("sub") != user_id:
        raise HTTPException(403)
    return user_id


async def session():
    async with sessions() as opened:
        yield opened


@app.get("/health")
async def health():
    return {"status": "healthy"}


@app.get("/api/{user_id}/tasks", response_model=List[TaskRead])
async def list_tasks(
    request: Request,
    response: Response,
    user: str = Depends(owner),
    db: AsyncSession = Depends(session),
    limit: int = Query(1000, ge=1, le=1000),
):
    mine = select(Task).where(Task.user_id == user)
    found = (await db.execute(mine.order_by(Task.created_at.desc(), Task.id.desc()).limit(limit + 1))).scalars().all()
    tasks = found[:limit]
    total = len(tasks)
    if len(found) > limit:
        total = (await db.execute(select(func.count()).select_from(Task).where(Task.user_id == user))).scalar_one()
        last = tasks[-1].created_at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        place = dumps(["created_at", "desc", last, tasks[-1].id], separators=(",", ":")).encode()
        cursor = urlsafe_b64encode(place).decode().rstrip("=")
        response.headers["link"] = f'<{request.url.path}?limit={limit}&cursor={cursor}>; rel="next"'
    response.headers["x-total-count"] = str(total)
    return tasks


@app.get("/api/{user_id}/tasks/{id}", response_model=TaskRead)
async def get_task(id: int = Path(ge=1), user: str = Depends(owner), db: AsyncSession = Depends(session)):
    task = (await db.execute(select(Task).where(Task.id == id, Task.user_id == user))).scalar_one_or_none()
    if task is None:
        raise HTTPException(404)
    return task


@app.post("/api/{user_id}/tasks", response_model=TaskRead, status_code=201)
async def create_task(
    body: NewTask, response: Response, user: str = Depends(owner), db: AsyncSession = Depends(session)
):
    task = Task(**body.dict(), user_id=user)
    db.add(task)
    await db.commit()
    await db.refresh(task)
    response.headers["location"] = f"/api/{quote(user, safe='')}/tasks/{task.id}"
    return task


uvicorn.run(app, host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning", access_log=False)
